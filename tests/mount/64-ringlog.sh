#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Ring logs: the limit is never passed, the end is always there, appenders of all kinds, followers,
# snapshots, crash, space.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"
need python3
need tail

M=$T/mnt
I=$T/image
make_image "$I" 256M
mount_pmfs "$I" "$M"

# Until the kernel has forgotten all old pages of a log.
settle() {
	python3 - "$1" <<-'PY'
		import errno, os, sys
		while True:
		    try:
		        os.getxattr(sys.argv[1], "user.pmfs.ringlog.cut")
		    except OSError as e:
		        if e.errno == errno.EAGAIN:
		            continue
		        assert e.errno == errno.ENODATA, e
		    break
	PY
}

say "made by the command, and by the attribute"
expect_ok pmfs-ctl ring create --log --size 256K "$M/log"
expect_fail 6 pmfs-ctl ring create --log --size 256K "$M/log"
expect_fail 2 pmfs-ctl ring create --log --size 1K "$M/small"
[ ! -e "$M/small" ] || fail "a refused log was left behind"

cat >"$T/log.py" <<'PY'
import errno, os, random, subprocess, sys
top = sys.argv[1]
path = top + "/log"
limit = 256 << 10
LOG, CUT = "user.pmfs.ringlog", "user.pmfs.ringlog.cut"
seed = int(os.environ.get("PMFS_SEED", "1"))
print("PMFS_SEED=%d" % seed)
rng = random.Random(seed)

def refused(want, fn, *args):
    try:
        fn(*args)
    except OSError as e:
        assert e.errno == want, (fn, args, e)
    else:
        raise AssertionError(("was not refused", fn, args))

def base(p):
    while True:
        try:
            return int(os.getxattr(p, CUT))
        except OSError as e:
            if e.errno == errno.ENODATA:
                return 0
            assert e.errno == errno.EAGAIN, e

# A model: all that was ever appended.
class Model:
    def __init__(self, p, limit):
        self.p, self.limit, self.all, self.cut_by_hand = p, limit, bytearray(), False
    def check(self, p=None):
        p = p or self.p
        # Also waits until the kernel has no old page any more.
        b = base(p)
        size = os.stat(p).st_size
        with open(p, "rb") as f:
            got = f.read()
        assert len(got) == size <= self.limit, (len(got), size)
        assert got == bytes(self.all[b:]), (b, len(got), len(self.all))
        if len(self.all) > self.limit and not self.cut_by_hand:
            assert size >= self.limit // 2, size

m = Model(path, limit)
fds = [os.open(path, os.O_WRONLY | os.O_APPEND) for _ in range(2)]
plain = os.open(path, os.O_WRONLY)
seek = 0
for i in range(1500):
    n = rng.choice([1, 10, 100, 1000, 4096, 5000, 40000, 140000] if i % 50 == 0 else [1, 30, 80, 200, 2000, 4096])
    data = bytes("%d:" % i, "ascii") + rng.randbytes(n)
    how = rng.randrange(4)
    if how < 2:
        assert os.write(fds[how], data) == len(data)
    elif how == 2:
        with open(path, "ab", buffering=0) as f:
            assert f.write(data) == len(data)
    else:
        # A program that does not know of O_APPEND and was there before the file was cut.
        os.lseek(plain, max(os.fstat(plain).st_size, seek), 0)
        assert os.write(plain, data) == len(data)
        seek = os.lseek(plain, 0, 1)
    m.all += data
    if rng.randrange(3) == 0:
        m.check()
m.check()
assert base(path) > 0

# Longer than the limit: its end stays.
big = rng.randbytes(3 * limit + 123)
with open(path, "ab", buffering=0) as f:
    done = 0
    while done < len(big):
        done += f.write(big[done:])
m.all += big
m.check()

# What does not fit is refused, and what is no size.
refused(errno.EFBIG, os.truncate, path, limit + 1)
refused(errno.EFBIG, os.posix_fallocate, plain, 0, limit + 1)
refused(errno.EINVAL, os.setxattr, path, LOG, b"12")
refused(errno.EINVAL, os.setxattr, path, LOG, b"x")
refused(errno.EPERM, os.setxattr, path, CUT, b"0")
refused(errno.EPERM, os.removexattr, path, CUT)
refused(errno.EINVAL, os.setxattr, top, LOG, b"1M")
m.check()

# By hand it can be made shorter, and be written into.
os.truncate(path, 1000)
m.cut_by_hand = True
m.all = m.all[:base(path) + 1000]
m.check()
fd = os.open(path, os.O_WRONLY)
os.pwrite(fd, b"middle", 500)
b = base(path)
m.all[b + 500:b + 506] = b"middle"
m.check()

# An ordinary file becomes one; what is too much goes at once.  And back.
p = top + "/other"
data = rng.randbytes(1 << 20)
with open(p, "wb") as f:
    f.write(data)
os.setxattr(p, LOG, b"128K")
o = Model(p, 128 << 10)
o.all += data
o.check()
with open(p, "ab", buffering=0) as f:
    for i in range(500):
        data = rng.randbytes(1000)
        f.write(data)
        o.all += data
o.check()
subprocess.run(["pmfs-snap", "-q", "create", top, "s"], check=True)
o.check(top + "/.snapshots/s/other")
before = Model(p, o.limit)
before.all = bytearray(o.all)
with open(p, "ab", buffering=0) as f:
    for i in range(500):
        data = rng.randbytes(1000)
        f.write(data)
        o.all += data
o.check()
before.check(top + "/.snapshots/s/other")
os.removexattr(p, LOG)
with open(p, "ab") as f:
    f.write(bytes(1 << 20))
assert os.stat(p).st_size > 1 << 20
PY
say "appends of all kinds against a model"
python3 "$T/log.py" "$M"

say "many appenders at a time: every line is whole, each one's in order"
pmfs-ctl ring create -q --log --size 128K "$M/lines"
for w in 1 2 3; do
	(for ((i = 0; i < 3000; i++)); do printf '%d %06d ..............................\n' $w $i; done >>"$M/lines") &
done
wait
settle "$M/lines"
tail -n +2 "$M/lines" | awk 'length($0) != 39 || NF != 3 || (($1 in last) && $2 <= last[$1]) { print; bad = 1 } { last[$1] = $2 } END { exit bad }' ||
	fail "a line is torn or out of order"

say "appenders and readers at a time, while it is cut: what is read between two equal numbers, and before the end, was written"
pmfs-ctl ring create -q --log --size 64K "$M/read"
cat >"$T/read.py" <<'PY'
import errno, os, random, sys
path, stop, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
rng = random.Random(seed)
fd = os.open(path, os.O_RDONLY)
last = checked = 0

def number(what):
    while True:
        try:
            return int(os.getxattr(path, "user.pmfs.ringlog." + what))
        except OSError as e:
            if e.errno == errno.ENODATA and what == "cut":
                return 0
            assert e.errno == errno.EAGAIN, e

while not checked or not os.path.exists(stop):
    cut = number("cut")
    assert cut >= last, (cut, last)
    last = cut
    end = number("end")
    off = rng.randrange(64 << 10)
    data = os.pread(fd, rng.choice([8, 100, 5000, 70000]), off)
    if number("cut") == cut:
        data = data[:max(end - cut - off, 0)]
        assert data.count(b"x") == len(data), (cut, end, off, len(data), data.count(b"x"))
        checked += len(data)
PY
cat >"$T/append.py" <<'PY'
import os, sys
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
for i in range(600):
    assert os.write(fd, b"x" * (8, 160, 4000, 16000)[i % 4])
PY
readers=()
for r in 1 2 3; do
	python3 "$T/read.py" "$M/read" "$T/read.stop" $r &
	readers+=($!)
	STARTED+=($!)
done
appenders=()
for r in 1 2; do
	python3 "$T/append.py" "$M/read" &
	appenders+=($!)
	STARTED+=($!)
done
for r in "${appenders[@]}"; do
	wait "$r" || fail "an appender failed"
done
: >"$T/read.stop"
for r in "${readers[@]}"; do
	wait "$r" || fail "a reader failed"
done
settle "$M/read"
[ "$(stat -c %s "$M/read")" -le $((64 << 10)) ] || fail "the log passes its limit"
[ "$(tr -d x <"$M/read" | wc -c)" -eq 0 ] || fail "the log has what nobody wrote"

say "tail -F follows over many cuts"
pmfs-ctl ring create -q --log --size 64K "$M/followed"
tail -F -n +1 "$M/followed" >"$T/followed" 2>"$T/tail.err" &
follower=$!
STARTED+=($follower)
for ((i = 0; i < 6000; i++)); do printf 'line %06d ..........................\n' $i; done >>"$M/followed"
echo "the end" >>"$M/followed"
for ((n = 0; n < WAIT_TENTHS; n++)); do
	grep -q '^the end$' "$T/followed" && break
	sleep 0.1
done
grep -q '^the end$' "$T/followed" || fail "tail -F has not come to the end"
kill $follower

say "space is bounded"
used=$(pmfs-ctl df --json "$M" | python3 -c 'import json,sys; print(json.load(sys.stdin)["data"]["live_bytes"])')
pmfs-ctl ring create -q --log --size 1M "$M/long"
head -c 40M /dev/urandom | dd of="$M/long" oflag=append conv=notrunc bs=16k status=none
now=$(pmfs-ctl df --json "$M" | python3 -c 'import json,sys; print(json.load(sys.stdin)["data"]["live_bytes"])')
[ $((now - used)) -le $((1 << 20)) ] || fail "a log of 1 MiB takes $((now - used)) bytes"

say "it is a log after kill -9, too"
sync "$M/lines"
sum=$(sha256sum <"$M/lines")
kill_pmfs "$M"
check_image "$I"
mount_pmfs "$I" "$M"
expect_equal "$(sha256sum <"$M/lines")" "$sum" "the log after a crash"
head -c 1M /dev/zero >>"$M/lines"
[ "$(stat -c %s "$M/lines")" -le $((128 * 1024)) ] || fail "the log passes its limit after a crash"
umount_pmfs "$M"
check_image "$I"
