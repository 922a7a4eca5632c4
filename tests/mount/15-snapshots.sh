#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Snapshots as directories: they show one moment, refuse every change, come and go under the eyes of the kernel's caches.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"
need python3

M=$T/mnt
S=$M/.snapshots
mount_pmfs ram "$M" size=256M

say "the listing follows what happens"
for round in 1 2 3; do
	expect_equal "$(ls "$S" | tr '\n' ' ')" '' "an empty .snapshots, round $round"
	expect_errno 'No such file' ls "$S/a"
	pmfs-snap -q create "$M" a
	expect_equal "$(ls "$S" | tr '\n' ' ')" 'a ' "one snapshot"
	[ -d "$S/a" ] || fail "a snapshot that was missing before is not found"
	pmfs-snap -q create "$M" b
	expect_equal "$(ls "$S" | tr '\n' ' ')" 'a b ' "two snapshots"
	pmfs-snap -q rename "$M" b c
	expect_equal "$(ls "$S" | tr '\n' ' ')" 'a c ' "after renaming"
	expect_errno 'No such file' ls "$S/b"
	[ -d "$S/c" ] || fail "the new name is not found"
	pmfs-snap -q delete "$M" a c
	expect_errno 'No such file' ls "$S/a"
done

say "each shows its own moment, links and inode numbers included"
mkdir -p "$M/dir/sub"
echo one >"$M/dir/f"
ln "$M/dir/f" "$M/dir/hard"
ln -s f "$M/dir/soft"
pmfs-snap -q create "$M" one
echo two >"$M/dir/f"
mv "$M/dir/sub" "$M/sub"
rm "$M/dir/hard"
echo other >"$M/dir/hard"
pmfs-snap -q create "$M" two
rm -r "$M/dir" "$M/sub"
pmfs-snap -q create "$M" three
expect_equal "$(cat "$S/one/dir/f" "$S/one/dir/hard" "$S/one/dir/soft" "$S/two/dir/f" "$S/two/dir/hard" | tr '\n' ' ')" \
	'one one one two other ' "contents"
expect_equal "$(cd "$S/one" && find . | sort | tr '\n' ' ')" '. ./dir ./dir/f ./dir/hard ./dir/soft ./dir/sub ' "names in one"
expect_equal "$(cd "$S/three" && find . | sort | tr '\n' ' ')" '. ' "names in three"
expect_equal "$(stat -c %h "$S/one/dir/f")" 2 "links in one"
expect_equal "$(stat -c %h "$S/two/dir/f")" 1 "links in two"
expect_equal "$(stat -c %i "$S/one/dir/f" "$S/one/dir/hard" | uniq | wc -l)" 1 "inode numbers of two links"
expect_equal "$(stat -c %i "$S"/{one,two}/dir/f "$S"/{one,two,three} "$S" "$M" | sort | uniq -d | wc -l)" 0 "inode numbers that two share"
expect_equal "$(cd "$S/one/dir/.." && ls)" dir "the way up inside"
expect_equal "$(cd "$S/one" && ls -ai | awk '$2 == ".." { print $1 }')" "$(stat -c %i "$S")" "what is above a snapshot"

say "every change is refused"
ro='Read-only file system'
printf 'x' >"$M/live"
in=$S/one/dir
expect_errno "$ro" touch "$in/new"
expect_errno "$ro" touch "$in/f"
expect_errno "$ro" mkdir "$in/new"
expect_errno "$ro" ln -s x "$in/new"
expect_errno "$ro" mkfifo "$in/new"
expect_errno "$ro" rm "$in/f"
expect_errno "$ro" rmdir "$in/sub"
expect_errno "$ro" mv "$in/f" "$in/g"
expect_errno "$ro" ln "$in/f" "$in/g"
expect_errno "$ro" chmod 600 "$in/f"
expect_errno "$ro" chown 1 "$in/f"
expect_errno "$ro" truncate -s 0 "$in/f"
expect_errno "$ro" dd if=/dev/zero of="$in/f" conv=notrunc status=none count=1
expect_errno "$ro" mkdir "$S/new"
expect_errno "$ro" touch "$S/new"
expect_errno "$ro" rmdir "$S/one"
expect_errno "$ro" mv "$S/one" "$S/uno"
expect_errno "$ro" chmod 700 "$S"
expect_errno "$ro" mv -T "$M/live" "$S/live"
python3 - "$M" <<'PY'
import errno, os, sys
os.chdir(sys.argv[1])
def refused(want, fn, *args):
    try:
        fn(*args)
        raise AssertionError((fn, args))
    except OSError as e:
        assert e.errno == want, (fn, args, e)
f = ".snapshots/one/dir/f"
refused(errno.EROFS, os.link, f, ".snapshots/one/g")
refused(errno.EROFS, os.setxattr, f, "user.a", b"")
refused(errno.EROFS, os.truncate, f, 0)
# Neither into the live tree nor out of it by name.
for a, b in ((f, "stolen"), ("live", ".snapshots/one/dir/live")):
    for fn in (os.rename, os.link):
        try:
            fn(a, b)
            raise AssertionError((fn, a, b))
        except OSError as e:
            assert e.errno in (errno.EROFS, errno.EXDEV), (fn, a, b, e)
# The names in the root are not to be had.
refused(errno.EEXIST, os.mkdir, ".snapshots")
refused(errno.EEXIST, os.symlink, "x", ".pmfs")
refused(errno.EBUSY, os.rmdir, ".snapshots")
refused(errno.EBUSY, os.unlink, ".pmfs")
refused(errno.EBUSY, os.rename, ".pmfs", "x")
refused(errno.EBUSY, os.rename, ".snapshots", "x")
refused(errno.EBUSY, os.rename, "live", ".pmfs")
assert os.listdir(".") == ["live"], os.listdir(".")
# Below the root they are names like others.
os.mkdir("d")
for name in (".snapshots", ".pmfs", ".forks"):
    os.mkdir("d/" + name)
    os.rmdir("d/" + name)
PY

say "a snapshot that is deleted while it is in use"
head -c 1M /dev/urandom >"$M/data"
pmfs-snap -q create "$M" used
exec 7<"$S/used/data"
head -c 4096 <&7 >/dev/null
pmfs-snap -q delete "$M" used
expect_errno 'No such file' ls "$S/used"
expect_errno 'No such file' cat "$S/used/data"
cat <&7 >/dev/null 2>&1 || true
exec 7<&-
rm "$M/data"
pmfs-snap -q create "$M" used
expect_equal "$(ls "$S/used" | tr '\n' ' ')" 'd live ' "the next one of that name"

say "many of them"
for n in $(seq 200); do pmfs-snap -q create "$M" "n$n"; done
expect_equal "$(ls "$S" | grep -c '^n')" 200 "snapshots"
expect_equal "$(cat "$S"/n*/live | wc -c)" 200 "bytes in them"
pmfs-snap -q delete "$M" $(seq -f n%g 1 2 200)
expect_equal "$(ls "$S" | grep -c '^n')" 100 "snapshots that are left"
umount_pmfs "$M"
