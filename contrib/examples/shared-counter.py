#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""shared-counter.py DIR: shared memory by name, with nothing but mmap and paths.

DIR/.pmfs/views/counter is memory that every process maps by its name; it is kept when the mount goes.
DIR/.pmfs/alias/counter is the same memory for those who may only look.
"""
import fcntl
import mmap
import os
import struct
import sys


def main():
    if len(sys.argv) != 2:
        raise SystemExit("usage: shared-counter.py DIR")
    view = os.path.join(sys.argv[1], ".pmfs", "views", "counter")
    alias = os.path.join(sys.argv[1], ".pmfs", "alias", "counter")
    with open(os.open(view, os.O_RDWR | os.O_CREAT, 0o666), "r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_size < mmap.PAGESIZE:
            os.truncate(file.fileno(), mmap.PAGESIZE)
        with mmap.mmap(file.fileno(), mmap.PAGESIZE) as memory:
            (count,) = struct.unpack_from("=Q", memory, 0)
            struct.pack_into("=Q", memory, 0, count + 1)
            # Needed only where the kernel can't pass the memory through; it is durable then, too.
            memory.flush()
            with open(alias, "rb") as other:
                with mmap.mmap(other.fileno(), mmap.PAGESIZE, prot=mmap.PROT_READ) as looking:
                    print(struct.unpack_from("=Q", looking, 0)[0])
    try:
        open(alias, "r+b")
    except PermissionError:
        return
    raise SystemExit("the alias could be opened for writing")


main()
