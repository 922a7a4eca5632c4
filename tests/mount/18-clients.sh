#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Several clients at once: each gets on, none sees half of another's change, and everything is right afterwards.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"
need python3 git

M=$T/mnt
cat >"$T/client.py" <<'PY'
import mmap, os, random, sys

top, me, seed = sys.argv[1], int(sys.argv[2]), int(os.environ.get("PMFS_SEED", "1"))
rng = random.Random(seed * 1000 + me)
os.chdir(top)
shared = os.open("shared", os.O_RDWR)

# Private trees, a shared directory, a shared file in which each has pages of his own.
os.makedirs(f"tree{me}", exist_ok=True)
model = {}
pages = {}
for step in range(600):
    what = rng.randrange(8)
    name = f"tree{me}/{rng.randrange(40)}"
    if what <= 2:
        data = rng.randbytes(rng.choice((0, 10, 5000, 40000)))
        with open(name, "wb") as f:
            f.write(data)
        model[name] = data
    elif what == 3 and name in model:
        os.unlink(name)
        del model[name]
    elif what == 4 and name in model:
        to = f"tree{me}/{rng.randrange(40)}"
        os.rename(name, to)
        if to != name:
            model[to] = model.pop(name)
    elif what == 5:
        # Everybody replaces the same name; a reader sees a whole one.
        with open(f"common/tmp{me}", "w") as f:
            f.write(f"{me} {step}\n" * 500)
        os.rename(f"common/tmp{me}", "common/name")
        with open("common/name") as f:
            lines = f.read().splitlines()
        assert len(lines) == 500 and len(set(lines)) == 1, (len(lines), set(lines))
    elif what == 6:
        page = rng.randrange(64) * 4 + me
        pages[page] = rng.randbytes(4096)
        os.pwrite(shared, pages[page], page * 4096)
    elif what == 7:
        try:
            os.mkdir("common/lock")
        except FileExistsError:
            pass
        else:
            # Whoever has made it is alone in it.
            fd = os.open("common/lock/owner", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
            os.write(fd, b"%d" % me)
            os.close(fd)
            os.unlink("common/lock/owner")
            os.rmdir("common/lock")
    if step % 50 == 0:
        for name, data in model.items():
            with open(name, "rb") as f:
                assert f.read() == data, name
for name, data in model.items():
    with open(name, "rb") as f:
        assert f.read() == data, name
assert {f"tree{me}/{n}" for n in os.listdir(f"tree{me}")} == set(model)
for page, data in pages.items():
    assert os.pread(shared, 4096, page * 4096) == data, page
PY

work() {
	mkdir "$M/common"
	truncate -s 1M "$M/shared"
	pids=()
	for n in 0 1 2 3; do
		python3 "$T/client.py" "$M" $n &
		pids+=($!)
	done
	# Meanwhile somebody takes snapshots and throws them away.
	for n in 1 2 3 4 5 6; do
		pmfs-snap -q create "$M" "s$n"
		[ $n -lt 3 ] || pmfs-snap -q delete "$M" "s$((n - 2))"
	done
	for pid in "${pids[@]}"; do
		wait "$pid" || fail "a client failed"
	done
}

say "an image"
make_image "$T/image" 512M
mount_pmfs "$T/image" "$M"
work
tree_sums "$M" >"$T/sums"
umount_pmfs "$M"
check_image "$T/image"
mount_pmfs "$T/image" "$M"
tree_sums "$M" | cmp - "$T/sums" || fail "the tree is another one after a remount"
umount_pmfs "$M"

say "RAM, writeback"
mount_pmfs ram "$M" size=512M,writeback
work
umount_pmfs "$M"

say "what a directory looks like is not what somebody else was told before"
mount_pmfs ram "$M" size=64M
python3 - "$M/watched" <<'PY'
import os, sys, threading
top = sys.argv[1]
os.mkdir(top)
stop = threading.Event()

def look():
    while not stop.is_set():
        os.stat(top)

def links(want, threads):
    # The kernel may be about to take in what is right; nobody asks meanwhile.
    if os.stat(top).st_nlink != want:
        stop.set()
        for thread in threads:
            thread.join()
        assert os.stat(top).st_nlink == want, "an old number of links"
        stop.clear()
        threads[:] = start()

def start():
    threads = [threading.Thread(target=look, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    return threads

threads = start()
for _ in range(700):
    os.mkdir(top + "/x")
    links(3, threads)
    os.rmdir(top + "/x")
    links(2, threads)
stop.set()
PY
umount_pmfs "$M"

say "one slow client does not stop the others: a flood of fsync"
mount_pmfs "$T/image" "$M"
rm -rf "${M:?}"/*
(for n in $(seq 200); do echo "$n" >"$M/sync"; sync "$M/sync"; done) &
flood=$!
for n in $(seq 300); do
	mkdir "$M/d$n"
	rmdir "$M/d$n"
done
wait $flood
umount_pmfs "$M"
check_image "$T/image"
