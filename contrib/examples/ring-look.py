#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""ring-look.py RING: print the messages in a ring without taking them.

It uses nothing but mmap and the file; include/pmfs/ring.h says what is where. It also reads a ring
in a snapshot, DIR/.snapshots/NAME/...
"""
import mmap
import struct
import sys

DONE = 2


def messages(ring):
    """The published messages, the oldest first."""
    magic, version, _flags, size, data = struct.unpack_from("=QIIQQ", ring, 0)
    if magic != int.from_bytes(b"pmfsring", "little") or version != 1:
        raise SystemExit("this is no ring")
    (tail,) = struct.unpack_from("=Q", ring, 128)
    (head,) = struct.unpack_from("=Q", ring, 64)
    if head - tail > size or head < tail:
        raise SystemExit("its positions contradict each other")
    while tail < head:
        at = tail % size
        length, state = struct.unpack_from("=IB", ring, data + at)
        if length > size - 8:
            raise SystemExit("a record is longer than the ring")
        if state == DONE:
            first = min(length, size - at - 8)
            yield ring[data + at + 8 : data + at + 8 + first] + ring[data : data + length - first]
        tail += (length + 15) // 8 * 8


def main():
    if len(sys.argv) != 2:
        raise SystemExit("usage: ring-look.py RING")
    with open(sys.argv[1], "rb") as file:
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as ring:
            for message in messages(ring):
                sys.stdout.buffer.write(message)


main()
