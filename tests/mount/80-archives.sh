#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# A tree with hard links, sparse files, attributes, lists, odd names, fifos and old times goes through cp, tar and rsync, and
# comes out equal.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"
need tar rsync setfattr getfattr

M=$T/mnt IMAGE=$T/image
make_image "$IMAGE"
mount_pmfs "$IMAGE" "$M"
TAR_ACLS=--no-acls RSYNC_ACLS=

say "a tree with all that archives know"
mkdir "$M/tree"
cd "$M/tree"
mkdir -p a/b/c empty $'odd \n name' "$(printf 'n%.0s' {1..255})"
for n in $(seq 60); do
	seq "$n" $((n * 40)) >"a/file$n"
	touch -d "19$((n % 30 + 70))-02-03 04:05:06.123456789" "a/file$n"
done
ln a/file1 a/b/other1
ln a/file1 a/b/c/third1
ln -s ../file2 a/b/link
ln -s nowhere dangling
mkfifo pipe
printf data | dd of=sparse bs=1 seek=80M conv=notrunc status=none
printf more | dd of=sparse bs=1 seek=2500000 conv=notrunc status=none
head -c 3000000 /dev/urandom >big
setfattr -n user.colour -v blue a/file3 a/b
setfattr -n user.long -v "$(seq 300 | tr -d '\n')" big
chmod 4751 a/file4
chmod 2770 a/b/c
chmod 0 a/file5
if [ "$(id -u)" -eq 0 ]; then
	chown 1234:2345 a/file6 a/b/link
	setfattr -n trusted.t -v x a/file7
	mknod device c 1 3
fi
if command -v setfacl >/dev/null && setfacl -m u:1000:rwx a/file8 2>/dev/null; then
	setfacl -d -m g:2000:rx a/b
	TAR_ACLS=--acls RSYNC_ACLS=A
fi
cd "$T"

facts() {
	(
		cd "$1"
		find . ! -name sparse -printf '%P %y %m %U %G %n %l\n' | sort
		find . -type f ! -name sparse -printf '%P %s %T@\n' | sort
		find . -type f ! -name sparse -print0 | sort -z | xargs -0 sha256sum
		getfattr -R -h -d -m - . 2>/dev/null
		# Which names are one file.
		find . -type f -links +1 -printf '%i %P\n' | sort | awk '{ if ($1 == last) printf " = "; else printf "\n"; printf "%s", $2; last = $1 }'
		stat -c '%s %a' sparse
		tail -c 10 sparse | sha256sum
		dd if=sparse bs=100000 skip=20 count=10 status=none | sha256sum
	)
}
facts "$M/tree" >"$T/want"

same() {
	facts "$1" >"$T/got"
	cmp -s "$T/want" "$T/got" || {
		diff -a "$T/want" "$T/got" | head -20
		fail "$2 made another tree"
	}
	[ "$(stat -c %b "$1/sparse")" -lt 10000 ] || fail "$2: the sparse file takes $(stat -c %b "$1/sparse") blocks"
}

say "cp"
cp -a --sparse=always "$M/tree" "$M/cp"
same "$M/cp" cp

say "tar"
tar -C "$M/tree" --xattrs --xattrs-include='*' $TAR_ACLS -Scf "$M/tree.tar" .
mkdir "$M/tar"
tar -C "$M/tar" --xattrs --xattrs-include='*' $TAR_ACLS --numeric-owner -Spxf "$M/tree.tar"
same "$M/tar" tar
tar -C "$M/tree" --xattrs --xattrs-include='*' $TAR_ACLS -df "$M/tree.tar" || fail "tar finds differences"

say "rsync, and again with nothing to do, and after a change"
rsync -aHXS$RSYNC_ACLS "$M/tree/" "$M/rsync/"
same "$M/rsync" rsync
expect_equal "$(rsync -aHXS${RSYNC_ACLS}i "$M/tree/" "$M/rsync/" | wc -l)" 0 "files that rsync copies again"
echo changed >>"$M/rsync/a/file9"
expect_equal "$(rsync -aHXS${RSYNC_ACLS}in "$M/tree/" "$M/rsync/" | wc -l)" 1 "files that rsync would copy after a change"
rsync -aHXS$RSYNC_ACLS --inplace --no-whole-file "$M/tree/" "$M/rsync/"
same "$M/rsync" "rsync --inplace"

say "all of it from the image"
umount_pmfs "$M"
check_image "$IMAGE"
mount_pmfs "$IMAGE" "$M"
for copy in tree cp tar rsync; do
	same "$M/$copy" "the image ($copy)"
done
rm -rf "$M/tree" "$M/cp" "$M/rsync" "$M/tar"
umount_pmfs "$M"
check_image "$IMAGE"
