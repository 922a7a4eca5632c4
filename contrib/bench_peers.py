# SPDX-License-Identifier: BSD-2-Clause
"""The filesystems that contrib/bench compares, mounted for as long as it runs.

Two classes: "ram" (nothing below but memory) and "image" (in a file of the filesystem that --dir is on,
so a flush has to reach the same disk for all of them).  A Peer is one filesystem of one class with a
directory to work in.  All daemons run in the foreground as children, so they can be pinned and ended.
"""
import contextlib
import ctypes
import glob
import json
import os
import shutil
import signal
import socket
import subprocess
import time

PMFS, KERNEL, FUSE = "pmfs", "kernel", "fuse"
MOUNT_SECONDS = 60
ALL_CPUS = os.sched_getaffinity(0)

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNS, MS_REC, MS_PRIVATE, PR_SET_PDEATHSIG = 0x20000, 1 << 14, 1 << 18, 1


class Missing(Exception):
    """This machine can't have that peer; str() says why."""


def run(*args, timeout=600, **kwargs):
    """A command that has to succeed; returns what it printed."""
    try:
        done = subprocess.run([str(a) for a in args], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              timeout=timeout, text=True, errors="replace", **kwargs)
    except FileNotFoundError:
        raise Missing(f"there is no {args[0]}") from None
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"{args[0]} took more than {timeout} s") from None
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or [f"exit status {done.returncode}"]
        raise RuntimeError(f"{os.path.basename(str(args[0]))}: {lines[-1]}")
    return done.stdout


def need(*programs):
    for program in programs:
        if not shutil.which(program):
            raise Missing(f"there is no {program}")


def own_mounts():
    """From here on nobody else sees what this process mounts, and it goes away with the last one that does."""
    if LIBC.unshare(CLONE_NEWNS) or LIBC.mount(b"none", b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None):
        raise RuntimeError(f"can't have mounts of its own: {os.strerror(ctypes.get_errno())}")


def end_with_parent():
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def set_affinity(pid, cpus):
    """Moves all threads of a process; returns where each was."""
    before = {}
    for task in glob.glob(f"/proc/{pid}/task/*"):
        tid = int(os.path.basename(task))
        with contextlib.suppress(OSError):
            before[tid] = os.sched_getaffinity(tid)
            os.sched_setaffinity(tid, cpus if not isinstance(cpus, dict) else cpus.get(tid, ALL_CPUS))
    return before


class Peer:
    def __init__(self, name, cls, kind, directory, daemon=None, loop_of=None):
        self.name, self.cls, self.kind, self.dir = name, cls, kind, directory
        self.daemon = daemon  # subprocess.Popen, or None for the kernel's own
        self.mountpoint = loop_of or directory

    def place(self, row):
        """An own directory for a row, made on first use."""
        path = os.path.join(self.dir, row)
        os.makedirs(path, exist_ok=True)
        return path

    @contextlib.contextmanager
    def on_one_core(self):
        """This process, what it starts, and the daemon share one core."""
        cpu = {min(ALL_CPUS)}
        before = set_affinity(self.daemon.pid, cpu) if self.daemon else {}
        os.sched_setaffinity(0, cpu)
        try:
            yield
        finally:
            os.sched_setaffinity(0, ALL_CPUS)
            if self.daemon:
                set_affinity(self.daemon.pid, before)


class Control:
    """A connection to a pmfs daemon (doc/protocol.md)."""

    def __init__(self, pid):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(f"/run/pmfs/{pid}/ctl")
        self.lines = self.sock.makefile("rb")

    def ask(self, op, **args):
        """Seconds that the round trip took."""
        request = (json.dumps({"op": op, "args": args}) + "\n").encode()
        began = time.perf_counter()
        self.sock.sendall(request)
        while True:
            line = self.lines.readline()
            took = time.perf_counter() - began
            reply = json.loads(line)
            if "type" not in reply:
                break
        if not reply["ok"]:
            raise RuntimeError(reply["error"]["message"])
        return took

    def close(self):
        self.lines.close()
        self.sock.close()


class Lab:
    """Mounts peers when they are first asked for, and takes all away at the end."""

    def __init__(self, stack, work, params, options):
        self.stack, self.work, self.params, self.options = stack, work, params, options
        self.peers, self.missing, self.bases = {}, {}, {}
        self.notes = []

    def path(self, *parts):
        return os.path.join(self.work, *parts)

    def peer(self, name, cls):
        """The peer, or None when this machine can't have it (told once, in self.missing)."""
        key = (name, cls)
        if key in self.missing:
            return None
        if key not in self.peers:
            maker = getattr(self, "make_" + name.replace("-", "_"))
            try:
                self.peers[key] = maker(cls)
            except (Missing, RuntimeError) as error:
                self.missing[key] = str(error)
                return None
        return self.peers[key]

    # --- what filesystems stand on ---------------------------------------------------------

    def new_dir(self, *parts):
        path = self.path(*parts)
        os.makedirs(path, exist_ok=True)
        return path

    def unmount(self, directory):
        if os.path.ismount(directory):
            try:
                run("umount", directory)
            except RuntimeError:
                run("umount", "-l", directory)

    def mount(self, *args):
        directory = args[-1]
        os.makedirs(directory, exist_ok=True)
        run("mount", *args)
        self.stack.callback(self.unmount, directory)
        return directory

    def tmpfs(self):
        if "tmpfs" not in self.bases:
            self.bases["tmpfs"] = self.mount("-t", "tmpfs", "-o", f"size={self.params['tmpfs_mib']}M",
                                             "pmfs-bench", self.path("tmpfs"))
        return self.bases["tmpfs"]

    def zeroed(self, path, mib):
        """A file all of whose blocks are written, so that later writes change no extents of the file below."""
        run("dd", "if=/dev/zero", f"of={path}", "bs=1M", f"count={mib}", "conv=fsync", "status=none")
        return path

    def loop(self, fs, options, *mkfs):
        """A filesystem of the kernel in a file beside the pmfs image; its requests go to the file directly."""
        if fs not in self.bases:
            need("losetup", mkfs[0])
            image = self.zeroed(self.path(fs + ".img"), self.params["image_mib"])
            run(*mkfs, image)
            try:
                device = run("losetup", "--find", "--show", "--direct-io=on", image).strip()
            except RuntimeError:
                device = run("losetup", "--find", "--show", image).strip()
            try:
                with open(f"/sys/block/{os.path.basename(device)}/loop/dio", encoding="ascii") as dio:
                    if dio.read().strip() != "1":
                        self.notes.append(f"{fs}: the loop device could not use direct I/O.")
                self.bases[fs] = self.mount("-t", fs, "-o", options, device, self.path(fs))
            finally:
                # While it is mounted this only says that it shall go with the mount.
                run("losetup", "--detach", device)
        return self.bases[fs]

    def daemon(self, directory, *args):
        """Starts a FUSE daemon in the foreground and waits until it has mounted."""
        os.makedirs(directory, exist_ok=True)
        log = open(directory + ".log", "wb")
        try:
            child = subprocess.Popen([str(a) for a in args], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                     start_new_session=True, preexec_fn=end_with_parent)
        except FileNotFoundError:
            raise Missing(f"there is no {args[0]}") from None
        finally:
            log.close()
        self.stack.callback(self.end_daemon, child, directory)
        end = time.monotonic() + MOUNT_SECONDS
        while not os.path.ismount(directory):
            if child.poll() is not None or time.monotonic() > end:
                with open(directory + ".log", encoding="utf-8", errors="replace") as lines:
                    text = lines.read().strip().splitlines() or ["it did not mount"]
                raise RuntimeError(f"{args[0]}: {text[-1]}")
            time.sleep(0.01)
        return child

    def end_daemon(self, child, directory):
        self.unmount(directory)
        try:
            child.wait(MOUNT_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

    # --- peers by name ---------------------------------------------------------------------

    def make_pmfs(self, cls, name="pmfs"):
        directory = self.path(f"{name}-{cls}")
        extra = ["-o", self.options] if self.options else []
        if cls == "ram":
            extra = ["-o", ",".join(filter(None, [f"size={self.params['tmpfs_mib']}M", self.options]))]
            child = self.daemon(directory, "pmfs", "ram", directory, "-f", *extra)
        else:
            image = self.path(f"{name}.pmfs")
            child = self.daemon(directory, "pmfs", image, directory, "-f", "--create",
                                "--size", f"{2 * self.params['image_mib']}M", *extra)
        return Peer(name, cls, PMFS, directory, child)

    def make_pmfs_1k(self, cls):
        """A second mount, whose tree stays small."""
        return self.make_pmfs(cls, "pmfs-1k")

    def pmfs_features(self):
        """What the daemon uses of the kernel and libfuse, by a mount that there is."""
        for peer in self.peers.values():
            if peer.kind == PMFS:
                return json.loads(run("pmfs-ctl", "--json", "status", peer.dir))["data"]["features"]
        return {}

    def make_tmpfs(self, _cls):
        return Peer("tmpfs", "ram", KERNEL, self.new_dir(self.tmpfs(), "tmpfs"))

    def make_host(self, _cls):
        return Peer("host", "image", KERNEL, self.new_dir("host"))

    def make_ext4(self, _cls):
        base = self.loop("ext4", "nodiscard", "mkfs.ext4", "-q", "-F", "-E",
                         "lazy_itable_init=0,lazy_journal_init=0,nodiscard")
        return Peer("ext4", "image", KERNEL, self.new_dir(base, "ext4"), loop_of=base)

    def make_xfs(self, _cls):
        base = self.loop("xfs", "nodiscard", "mkfs.xfs", "-q", "-f", "-K")
        return Peer("xfs", "image", KERNEL, self.new_dir(base, "xfs"), loop_of=base)

    def make_btrfs(self, _cls):
        base = self.loop("btrfs", "nodiscard", "mkfs.btrfs", "-q", "-f", "-K")
        return Peer("btrfs", "image", KERNEL, self.new_dir(base, "btrfs"), loop_of=base)

    def make_btrfs_1k(self, _cls):
        return Peer("btrfs-1k", "image", KERNEL, self.new_dir(self.make_btrfs("image").mountpoint, "btrfs-1k"))

    def make_xfs_4k(self, _cls):
        """The same, deduplicated by duperemove in blocks of 4 KiB."""
        return Peer("xfs-4k", "image", KERNEL, self.new_dir(self.make_xfs("image").mountpoint, "xfs-4k"))

    def below(self, cls, name):
        """Where a FUSE peer that has no disk of its own keeps its files."""
        base = self.tmpfs() if cls == "ram" else self.make_ext4(cls).mountpoint
        return self.new_dir(base, name)

    def make_bindfs(self, cls):
        need("bindfs")
        directory = self.path(f"bindfs-{cls}")
        child = self.daemon(directory, "bindfs", "-f", self.below(cls, "bindfs"), directory)
        return Peer("bindfs", cls, FUSE, directory, child)

    def make_unionfs(self, cls):
        need("unionfs")
        directory = self.path(f"unionfs-{cls}")
        child = self.daemon(directory, "unionfs", "-f", "-o", "cow", self.below(cls, "unionfs") + "=RW", directory)
        return Peer("unionfs", cls, FUSE, directory, child)

    def make_fuse_overlayfs(self, cls):
        need("fuse-overlayfs")
        directory, base = self.path(f"overlay-{cls}"), self.below(cls, "overlay")
        lower, upper, work = (self.new_dir(base, part) for part in ("lower", "upper", "work"))
        child = self.daemon(directory, "fuse-overlayfs", "-f", "-o",
                            f"lowerdir={lower},upperdir={upper},workdir={work}", directory)
        return Peer("fuse-overlayfs", cls, FUSE, directory, child)

    def make_fuse2fs(self, cls):
        need("fuse2fs", "mkfs.ext4")
        directory = self.path(f"fuse2fs-{cls}")
        if cls == "ram":
            image = os.path.join(self.tmpfs(), "fuse2fs.img")
            run("truncate", "-s", f"{self.params['tmpfs_mib'] // 2}M", image)
        else:
            image = self.zeroed(self.path("fuse2fs.img"), self.params["image_mib"] // 2)
        run("mkfs.ext4", "-q", "-F", image)
        child = self.daemon(directory, "fuse2fs", "-f", image, directory)
        return Peer("fuse2fs", cls, FUSE, directory, child)
