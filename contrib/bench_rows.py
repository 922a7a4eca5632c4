# SPDX-License-Identifier: BSD-2-Clause
"""What contrib/bench measures: the sizes, the rows with their goals, and how a figure is taken.

A measurement gets the Bench, a Peer and a directory of its own in it; it returns a figure, or a dict with the figure as
"value" and others beside it.  What has to be there first is made by the row's prepare, once; neither that nor the
syncing before it is part of a figure.
"""
import dataclasses
import fcntl
import json
import os
import random
import re
import shutil
import sqlite3
import statistics
import struct
import tarfile
import time
from typing import Callable

from bench_peers import PMFS, Control, need, run

MIB = 1 << 20
PAGE = 4096
OP_SECONDS = 180  # one measurement; a peer that takes longer is left out of the row

# After "least" rounds of a row a peer that has taken more than "seconds" for it sits out the rest.
SIZES = {
    "tiny": dict(rounds=1, least=1, seconds=5, stream=8, reads=256, files=200, flushes=10, tar=100, transactions=20,
                 tree=500, clone=16, dedup=8, pages=256, git=100, tmpfs_mib=1024, image_mib=512),
    "quick": dict(rounds=3, least=2, seconds=3, stream=128, reads=8192, files=4000, flushes=250, tar=2000,
                  transactions=500, tree=20000, clone=512, dedup=128, pages=4096, git=2000, tmpfs_mib=4096,
                  image_mib=2560),
    "full": dict(rounds=7, least=3, seconds=10, stream=512, reads=32768, files=10000, flushes=1000, tar=10000,
                 transactions=2000, tree=200000, clone=4096, dedup=512, pages=16384, git=10000, tmpfs_mib=10240,
                 image_mib=8192),
}

FUSE_PEERS = ("bindfs", "fuse2fs", "fuse-overlayfs", "unionfs")
KERNEL_PEERS = ("tmpfs", "host", "ext4", "xfs", "btrfs")
BEST_FUSE = "best FUSE peer"
BEST_PEER = "best peer"


@dataclasses.dataclass
class Goal:
    """Of the ratio to a peer (to = its name), or of a figure of pmfs' own (to = None)."""
    to: str | None
    limit: float
    figure: str = "value"
    more: bool = True  # the figure has to be at least the limit

    def text(self, unit):
        sign = ">=" if self.more else "<="
        if self.to:
            return f"{sign} {self.limit:g} of {self.to}"
        name = "" if self.figure == "value" else self.figure.replace("_", " ") + " "
        return f"{name}{sign} {self.limit:g} {unit if self.figure == 'value' else ''}".strip()


@dataclasses.dataclass
class Row:
    key: str
    title: str
    cls: str
    unit: str
    peers: tuple
    measure: Callable  # (bench, peer, place) -> a figure, or a dict with "value" and others
    prepare: Callable = None  # (bench, peer, place), once
    goals: tuple = ()
    less: bool = False  # a smaller figure is better
    one_core: bool = False


class Bench:
    def __init__(self, lab, params, ops):
        self.lab, self.n, self.ops_program = lab, params, ops
        self.serial = 0

    def ops(self, op, place, count, clients=1):
        """(units, seconds, further figures) of bench-ops."""
        words = run(self.ops_program, op, place, count, clients, timeout=OP_SECONDS).split()
        extra = {name: float(value) for name, value in (w.split("=") for w in words[3:])}
        return float(words[1]), float(words[2]), extra

    def rate(self, op, place, count, clients=1):
        units, seconds, _ = self.ops(op, place, count, clients)
        return units / seconds

    def next_name(self):
        self.serial += 1
        return f"n{self.serial}"

    def sync(self, peer):
        """All that was written is on its disk, so that one measurement does not pay for another."""
        if peer.kind == PMFS:
            run("pmfs-ctl", "-q", "sync", peer.dir)
        else:
            run("sync", "-f", peer.dir)


def timed(*args):
    began = time.perf_counter()
    run(*args, timeout=OP_SECONDS)
    return time.perf_counter() - began


def drop_names():
    with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as drop:
        drop.write("2\n")


# --- streams and random access ---------------------------------------------------------------


def make_stream(b, peer, place):
    b.ops("write", place, b.n["stream"])
    b.sync(peer)


def stream_rate(op):
    return lambda b, peer, place: b.rate(op, place, b.n["stream"])


def random_rate(op):
    return lambda b, peer, place: b.rate(op, place, b.n["reads"])


def measure_fsync_4k(b, _peer, place):
    return b.rate("fsync-4k", place, b.n["flushes"])


def measure_fsync_busy(b, _peer, place):
    _, _, extra = b.ops("fsync-busy", place, b.n["flushes"])
    return {"value": extra["busy_us"] / extra["idle_us"], "idle_us": extra["idle_us"],
            "busy_us": extra["busy_us"], "p99_ms": extra["p99_us"] / 1000}


def measure_first_write(b, peer, place):
    """Microseconds of a page's first write after a snapshot, in units of another one's."""
    pages = b.n["pages"]
    b.ops("page-write", place, pages)
    ordinary = b.ops("page-write", place, pages)[1]
    snapshot(b, peer, place)
    first = b.ops("page-write", place, pages)[1]
    return {"value": first / ordinary, "ordinary_us": ordinary / pages * 1e6, "first_us": first / pages * 1e6}


def make_subvolume(peer, place):
    """What btrfs can snapshot; pmfs' snapshots are of all."""
    if peer.name.startswith("btrfs"):
        os.rmdir(place)
        run("btrfs", "-q", "subvolume", "create", place)


def make_snapshot_stream(b, peer, place):
    make_subvolume(peer, place)
    make_stream(b, peer, place)


# --- names -------------------------------------------------------------------------------------


def make_files(b, peer, place):
    b.ops("create", place, b.n["files"])
    b.sync(peer)


def empty(b, peer, place):
    for name in os.listdir(place):
        shutil.rmtree(os.path.join(place, name))
    b.sync(peer)


def measure_create(b, peer, place):
    empty(b, peer, place)
    return b.rate("create", place, b.n["files"])


def measure_stat(b, _peer, place):
    drop_names()
    return b.rate("stat", place, b.n["files"])


def measure_open_read(b, _peer, place):
    return b.rate("open-read", place, b.n["files"])


def make_tar(b):
    """A source tree of files of 100 bytes to 16 KiB, most of them small."""
    path = b.lab.path("tree.tar")
    if not os.path.exists(path):
        rng = random.Random(1)
        source = b.lab.new_dir("tree")
        for i in range(b.n["tar"]):
            folder = os.path.join(source, f"d{i // 50}")
            os.makedirs(folder, exist_ok=True)
            with open(os.path.join(folder, f"f{i}"), "wb") as out:
                out.write(rng.randbytes(int(100 * 2 ** (rng.random() ** 2 * 7.3))))
        with tarfile.open(path, "w") as tar:
            tar.add(source, "tree")
        shutil.rmtree(source)
    return path


def measure_untar(b, peer, place):
    shutil.rmtree(os.path.join(place, "tree"), ignore_errors=True)
    b.sync(peer)
    return b.n["tar"] / timed("tar", "-C", place, "-xf", make_tar(b))


def measure_rm(b, peer, place):
    run("tar", "-C", place, "-xf", make_tar(b), timeout=OP_SECONDS)
    b.sync(peer)
    return b.n["tar"] / timed("rm", "-rf", os.path.join(place, "tree"))


def git(place, *args):
    # Whoever runs this may have settings that change what git does.
    env = dict(os.environ, GIT_CONFIG_NOSYSTEM="1", GIT_CONFIG_GLOBAL="/dev/null", GIT_AUTHOR_NAME="b",
               GIT_AUTHOR_EMAIL="b@example.org", GIT_COMMITTER_NAME="b", GIT_COMMITTER_EMAIL="b@example.org")
    return run("git", "-C", place, "-c", "safe.directory=*", "-c", "gc.auto=0", *args, timeout=OP_SECONDS, env=env)


def make_git(b, peer, place):
    b.ops("create", place, b.n["git"])
    git(place, "init", "-q")
    git(place, "add", ".")
    git(place, "commit", "-q", "-m", "tree")
    b.sync(peer)
    time.sleep(1.1)  # git looks into files that are as new as its index
    git(place, "status", "--porcelain")


def measure_git(b, _peer, place):
    git(place, "status", "--porcelain")
    began = time.perf_counter()
    changed = git(place, "status", "--porcelain")
    took = time.perf_counter() - began
    if changed:
        raise RuntimeError("git status sees changes where there are none")
    return b.n["git"] / took


def measure_two_creates(b, peer, place):
    empty(b, peer, place)
    one = b.rate("create", b.lab.new_dir(place, "one"), b.n["files"])
    two = b.rate("create", b.lab.new_dir(place, "two"), b.n["files"], 2)
    return {"value": two / one, "one": one, "two": two}


def make_two_streams(b, peer, place):
    b.ops("write", place, b.n["stream"])
    b.ops("write", place, b.n["stream"], 2)
    b.sync(peer)


def measure_two_reads(b, _peer, place):
    one = b.rate("read-warm", place, b.n["stream"])
    two = b.rate("read-warm", place, b.n["stream"], 2)
    return {"value": two / one, "one": one, "two": two}


# --- databases ---------------------------------------------------------------------------------


def measure_sqlite(b, _peer, place):
    name = os.path.join(place, b.next_name())
    db = sqlite3.connect(name, isolation_level=None)
    try:
        if db.execute("PRAGMA journal_mode=WAL").fetchone()[0] != "wal":
            raise RuntimeError("SQLite can't use WAL here")
        db.execute("PRAGMA synchronous=FULL")
        db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, text)")
        text = "x" * 100
        began = time.perf_counter()
        for _ in range(b.n["transactions"]):
            db.execute("INSERT INTO t(text) VALUES(?)", (text,))
        return b.n["transactions"] / (time.perf_counter() - began)
    finally:
        db.close()
        os.unlink(name)


# --- snapshots and sharing ---------------------------------------------------------------------

BTRFS_IOC_SNAP_CREATE_V2 = 0x50009417
BTRFS_IOC_SYNC = 0x9408
SNAPSHOT_REPEATS = 5


def btrfs_snapshot(place, target):
    """The ioctl itself, without the start of a command; target is a path on the same filesystem."""
    source = os.open(place, os.O_RDONLY)
    folder = os.open(os.path.dirname(target), os.O_RDONLY)
    try:
        name = os.path.basename(target).encode()
        # A mutable buffer: fcntl takes no more than 1024 bytes of another.
        args = bytearray(struct.pack("qQQ32x4040s", source, 0, 0, name))
        fcntl.ioctl(folder, BTRFS_IOC_SNAP_CREATE_V2, args)
    finally:
        os.close(source)
        os.close(folder)


def snapshot(b, peer, place):
    name = b.next_name()
    if peer.kind == PMFS:
        run("pmfs-snap", "-q", "create", peer.dir, name)
    else:
        btrfs_snapshot(place, os.path.join(peer.mountpoint, name))


def make_tree(b, peer, place):
    make_subvolume(peer, place)
    b.ops("create-empty", place, 1000 if peer.name.endswith("-1k") else b.n["tree"])
    b.sync(peer)


def measure_snapshot(b, peer, place):
    """Milliseconds of the command; in the daemon: the control channel's round trip less that of a ping."""
    whole, inside, start = [], [], []
    control = Control(peer.daemon.pid)
    try:
        for _ in range(SNAPSHOT_REPEATS):
            whole.append(timed("pmfs-snap", "-q", "create", peer.dir, b.next_name()))
            start.append(timed("pmfs-snap", "--version"))
            ping = min(control.ask("ping") for _ in range(5))
            inside.append(max(0.0, control.ask("snap.create", name=b.next_name()) - ping))
    finally:
        control.close()
    return {"value": statistics.median(whole) * 1e3, "daemon_us": statistics.median(inside) * 1e6,
            "empty_command_ms": statistics.median(start) * 1e3}


def measure_snapshot_image(b, peer, place):
    """Milliseconds until a snapshot of a clean tree is durable: the ioctl and a sync, or the same of the daemon."""
    took = []
    control = Control(peer.daemon.pid) if peer.kind == PMFS else None
    fd = os.open(place, os.O_RDONLY)
    try:
        for _ in range(SNAPSHOT_REPEATS):
            name = b.next_name()
            began = time.perf_counter()
            if control:
                control.ask("snap.create", name=name)
                control.ask("sync")
            else:
                btrfs_snapshot(place, os.path.join(peer.mountpoint, name))
                fcntl.ioctl(fd, BTRFS_IOC_SYNC)
            took.append(time.perf_counter() - began)
    finally:
        os.close(fd)
        if control:
            control.close()
    return statistics.median(took) * 1e3


def make_clone(fragmented):
    def prepare(b, peer, place):
        b.ops("write", place, b.n["clone"])
        if fragmented:
            # Extents that a clone shares have to be given up one by one when the file is written to.
            b.ops("clone", place, 1)
            b.ops("fragment", place, 8)
        b.sync(peer)
    return prepare


def measure_clone(b, peer, place):
    path = os.path.join(place, "clone")
    if os.path.exists(path):
        os.unlink(path)
    b.sync(peer)
    return b.ops("clone", place, 1)[1] * 1e3


def duplicates(b, share):
    """Runs of pages as (offset in a source of random pages), a share of them said twice."""
    pages = b.n["dedup"] * MIB // PAGE
    rng = random.Random(2)
    fresh, runs, unused = 0, [], []
    repeated = int(pages * share)
    while repeated > 0 or fresh < pages - int(pages * share):
        length = min(2 ** rng.randrange(0, 10), max(repeated, 1))
        left = pages - int(pages * share) - fresh
        if left > 0 and (not unused or repeated <= 0 or rng.random() < 0.5):
            length = min(2 ** rng.randrange(0, 10), left)
            runs.append((fresh, length))
            unused.append((fresh, length))
            fresh += length
        else:
            start, have = unused.pop(rng.randrange(len(unused))) if unused else (0, fresh)
            length = min(have, repeated)
            runs.append((start, length))
            repeated -= length
    return runs, fresh, int(pages * share)


DEDUP_FILES = 16


def stored_pages(folder):
    """Pages of the disk below the files of a folder, each once."""
    extent = re.compile(r"^\s*\d+:\s*\d+\.\.\s*\d+:\s*(\d+)\.\.\s*(\d+):", re.M)
    pages = set()
    for name in os.listdir(folder):
        for first, last in extent.findall(run("filefrag", "-v", f"-b{PAGE}", os.path.join(folder, name))):
            pages.update(range(int(first), int(last) + 1))
    return len(pages)


def make_duplicates(b, place, share):
    """Files of new contents; returns how many of their pages are said twice."""
    runs, fresh, repeated = duplicates(b, share)
    rng = random.Random(b.next_name())
    source = b"".join(rng.randbytes(MIB) for _ in range(fresh * PAGE // MIB + 1))
    data = memoryview(b"".join(source[start * PAGE:(start + length) * PAGE] for start, length in runs))
    part = len(data) // DEDUP_FILES
    for i in range(DEDUP_FILES):
        with open(os.path.join(place, f"f{i}"), "wb") as out:
            out.write(data[i * part:(i + 1) * part])
    return repeated


def measure_dedup(share):
    def measure(b, peer, place):
        for name in os.listdir(place):
            os.unlink(os.path.join(place, name))
        repeated = make_duplicates(b, place, share)
        b.sync(peer)
        if peer.kind == PMFS:
            before = dedup_state(peer)["pages_merged"]
            took = timed("pmfs-ctl", "-q", "dedup", peer.dir, "start")
            took += timed("pmfs-ctl", "-q", "dedup", peer.dir, "wait")
            found = dedup_state(peer)["pages_merged"] - before
        else:
            need("duperemove", "filefrag")
            before = stored_pages(place)
            block = ["-b", "4k"] if peer.name.endswith("-4k") else []
            took = timed("duperemove", "-dqr", "--dedupe-options=same,partial", *block, place)
            b.sync(peer)
            found = before - stored_pages(place)
        return {"value": b.n["dedup"] / took, "found_percent": 100 * found / repeated}
    return measure


def dedup_state(peer):
    return json.loads(run("pmfs-ctl", "--json", "dedup", peer.dir, "status"))["data"]


# --- the table of goals ------------------------------------------------------------------------

RAM = ("pmfs", "tmpfs") + FUSE_PEERS
DISK = ("pmfs", "host", "ext4", "xfs", "btrfs", "fuse2fs")
DEDUP = ("pmfs", "xfs", "xfs-4k", "btrfs")
BOTH = ("pmfs", "ext4", "xfs", "btrfs", "host") + FUSE_PEERS


def rows():
    of = Goal
    names_ram = [
        ("create", "create + write 100 B + close", measure_create, None, (of(BEST_FUSE, 1.5),)),
        ("untar", "untar", measure_untar, None, (of(BEST_FUSE, 1.5),)),
        ("rm", "rm -rf of that tree", measure_rm, None, ()),
        ("stat", "cold stat", measure_stat, make_files, (of(BEST_FUSE, 1.2),)),
    ]
    result = [
        Row("read", "cached sequential read", "ram", "MiB/s", RAM, stream_rate("read-warm"), make_stream,
            (of("tmpfs", 0.9),)),
        Row("random-read", "cached random 4 KiB read", "ram", "op/s", RAM, random_rate("random-read-warm"),
            make_stream, (of("tmpfs", 0.9),)),
        Row("map-read", "cached mmap read", "ram", "MiB/s", RAM, stream_rate("map-read"), make_stream,
            (of("tmpfs", 0.9),)),
        Row("open-read", "open + read + close of a cached file", "ram", "op/s", RAM, measure_open_read, make_files,
            (of("tmpfs", 0.7),)),
        Row("git-status", "git status in a warm tree", "image", "files/s", BOTH, measure_git, make_git,
            (of("ext4", 0.8),)),
        Row("read-cold", "cold sequential read", "ram", "MiB/s", RAM, stream_rate("read-cold"), make_stream,
            (of("tmpfs", 0.4), of(BEST_FUSE, 1.0))),
        Row("random-read-cold", "cold random 4 KiB read", "ram", "op/s", RAM, random_rate("random-read-cold"),
            make_stream, (of(BEST_FUSE, 1.5),)),
        Row("write", "sequential 1 MiB writes + fsync", "ram", "MiB/s", RAM, stream_rate("write"), None,
            (of("tmpfs", 0.35), of(BEST_FUSE, 1.0))),
        Row("write-image", "sequential 1 MiB writes + fsync", "image", "MiB/s", DISK, stream_rate("write"), None,
            (of("ext4", 0.7), of("btrfs", 1.0))),
        Row("random-write", "random 4 KiB writes, fsync at the end", "image", "op/s", DISK,
            random_rate("random-write"), make_stream, (of("btrfs", 1.0),)),
        Row("fsync", "fsync after each 4 KiB write", "image", "op/s", DISK, measure_fsync_4k, None,
            (of("ext4", 0.5), of("btrfs", 3.0))),
        Row("fsync-busy", "fsync of 4 KiB while another streams, median in units of idle", "image", "x", DISK,
            measure_fsync_busy, None, (of(None, 5, more=False), of(None, 50, "p99_ms", more=False)), less=True),
        Row("sqlite", "SQLite transactions, WAL, synchronous=FULL", "image", "tx/s", DISK, measure_sqlite, None,
            (of("ext4", 0.5), of("btrfs", 2.0))),
    ]
    for key, title, measure, prepare, goals in names_ram:
        unit = "op/s" if key in ("create", "stat") else "files/s"
        result.append(Row(key, title, "ram", unit, RAM, measure, prepare, goals))
        result.append(Row(key + "-1core", title + ", all on one core", "ram", unit, RAM, measure, prepare, goals,
                          one_core=True))
    result += [
        Row("create-image", "create + write 100 B + close", "image", "op/s", DISK, measure_create, None,
            (of("btrfs", 0.4),)),
        Row("untar-image", "untar", "image", "files/s", DISK, measure_untar, None, (of("ext4", 0.5),)),
        Row("rm-image", "rm -rf of that tree", "image", "files/s", DISK, measure_rm, None, (of("ext4", 1.0),)),
        Row("two-creates", "two clients create, in units of one", "ram", "x", ("pmfs", "tmpfs"),
            measure_two_creates, None, (of(None, 1.6),)),
        Row("two-reads", "two clients read what is cached, in units of one", "ram", "x", ("pmfs", "tmpfs"),
            measure_two_reads, make_two_streams, (of(None, 1.6),)),
        Row("snapshot", "snapshot command, large tree and 1,000 files", "ram", "ms", ("pmfs", "pmfs-1k"),
            measure_snapshot, make_tree,
            (of(None, 2, more=False), of(None, 100, "daemon_us", more=False)), less=True),
        Row("snapshot-image", "snapshot of a clean tree until durable, large and 1,000 files", "image", "ms",
            ("pmfs", "pmfs-1k", "btrfs", "btrfs-1k"), measure_snapshot_image, make_tree,
            (of("btrfs", 1.0), of("pmfs-1k", 0.7)), less=True),
        Row("clone", "clone of a large file", "image", "ms", ("pmfs", "xfs", "btrfs"), measure_clone,
            make_clone(False), (of(None, 1, more=False),), less=True),
        Row("clone-fragmented", "clone of a large fragmented file", "image", "ms", ("pmfs", "xfs", "btrfs"),
            measure_clone, make_clone(True), (of(None, 1, more=False),), less=True),
        Row("first-write-ram", "first 4 KiB write after a snapshot, in units of an ordinary one", "ram", "x",
            ("pmfs",), measure_first_write, make_snapshot_stream, (of(None, 2, more=False),), less=True),
        Row("first-write", "first 4 KiB write after a snapshot, in units of an ordinary one", "image", "x",
            ("pmfs", "btrfs"), measure_first_write, make_snapshot_stream, (of(None, 2, more=False),), less=True),
        Row("dedup-few", "dedup pass, 2 % duplicates", "image", "MiB/s", DEDUP,
            measure_dedup(0.02), None, (of(BEST_PEER, 20), of(None, 100, "found_percent"))),
        Row("dedup-half", "dedup pass, half duplicates", "image", "MiB/s", DEDUP,
            measure_dedup(0.5), None, (of(BEST_PEER, 10), of(None, 100, "found_percent"))),
    ]
    return result
