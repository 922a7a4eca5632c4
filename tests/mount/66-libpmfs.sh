# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# libpmfs as it is installed: pkg-config, both libraries, C and C++, the examples on a mount.
. "$(dirname "$0")/lib.sh"

need make pkg-config ps python3
src=${PMFS_SRCDIR:-$(dirname "$0")/../..}
[ -f "$PMFS_BUILD/Makefile" ] || skip 'there is no build directory to install from'
cc=$(sed -n 's/^CC = //p' "$PMFS_BUILD/Makefile")
sanitizers=$(sed -n 's/^SANITIZERS = //p' "$PMFS_BUILD/Makefile")
prefix=$(sed -n 's/^prefix = //p' "$PMFS_BUILD/Makefile")
flags=(-std=gnu17 -D_GNU_SOURCE -Wall -Wextra -Werror -pthread)
if [ "$sanitizers" != no ]; then
	flags+=("-fsanitize=$sanitizers")
fi

say 'install'
make -C "$PMFS_BUILD" install DESTDIR="$T/root" >"$T/install.log" 2>&1 ||
	{ cat "$T/install.log"; fail 'make install'; }
lib=$(dirname "$(find "$T/root" -name libpmfs.so)")
[ "$(readlink "$lib/libpmfs.so")" = libpmfs.so.0 ] || fail 'libpmfs.so does not lead to its soname'
[ -f "$lib/libpmfs.so.0" ] || fail 'there is no libpmfs.so.0'
export PKG_CONFIG_PATH=$lib/pkgconfig LD_LIBRARY_PATH=$lib
pc=(pkg-config "--define-variable=prefix=$T/root$prefix")
"${pc[@]}" --exists pmfs || fail 'pkg-config does not find pmfs'
read -ra compile <<<"$("${pc[@]}" --cflags pmfs)"
read -ra shared <<<"$("${pc[@]}" --libs pmfs)"

say 'the examples, with the shared library'
mkdir "$T/bin"
for source in "$src"/contrib/examples/*.c; do
	name=$(basename "$source" .c)
	"$cc" "${flags[@]}" "${compile[@]}" "$source" -o "$T/bin/$name" "${shared[@]}" ||
		fail "can't build $name"
done

say 'the static library hides what is inside'
cat >"$T/mine.c" <<-'END'
	#include <pmfs.h>
	#include <pmfs/ring.h>
	#include <stdio.h>
	int client_open(void);
	int client_open(void) { return 7; }
	int ring_now_ns(void);
	int ring_now_ns(void) { return 8; }
	int main(void)
	{
		struct pmfs_snapshot_list *list;
		int rc = pmfs_snapshot_list("/", &list);
		printf("%s %d %d %d\n", pmfs_version(), rc != 0, client_open(), ring_now_ns());
		return 0;
	}
END
"$cc" "${flags[@]}" "${compile[@]}" "$T/mine.c" -o "$T/bin/mine" "$lib/libpmfs.a" -ljansson
expect_equal "$(LD_LIBRARY_PATH='' "$T/bin/mine")" "$("${pc[@]}" --modversion pmfs) 1 7 8" 'a program'
if command -v g++ >/dev/null; then
	say 'C++'
	printf '%s\n' '#include <pmfs.h>' '#include <pmfs/ring.h>' '#include <cstdio>' \
		'int main() { std::puts(pmfs_version()); }' >"$T/mine.cc"
	g++ -Wall -Wextra -Wpedantic -Werror "${compile[@]}" "$T/mine.cc" -o "$T/bin/minecc" "${shared[@]}"
	if [ "$sanitizers" = no ]; then
		"$T/bin/minecc" >/dev/null
	fi
fi
if [ "$sanitizers" = no ]; then
	# Each symbol has a version, and there are no others.
	nm -D --defined-only "$lib/libpmfs.so.0" | awk '$2 == "T" { print $3 }' >"$T/symbols"
	[ "$(grep -c '^pmfs_.*@@PMFS_' "$T/symbols")" -eq "$(wc -l <"$T/symbols")" ] ||
		{ cat "$T/symbols"; fail 'a symbol without a version'; }
fi

make_image "$T/image"
mount_pmfs "$T/image" "$T/m"
places=("$T/m")
if [ -d "$T/m/.pmfs/views/." ]; then
	places+=("$T/m/.pmfs/views")
fi

say 'a ring'
seq 1 5000 >"$T/lines"
for place in "${places[@]}"; do
	head -n 1 "$T/lines" | "$T/bin/ring-producer" "$place/ring"
	tail -n +2 "$T/lines" | "$T/bin/ring-producer" "$place/ring" &
	producer=$!
	"$T/bin/ring-consumer" "$place/ring" 5000 >"$T/got"
	wait "$producer"
	cmp "$T/lines" "$T/got" || fail "the ring in $place"
	printf '%s\n' one two | "$T/bin/ring-producer" "$place/ring"
	expect_equal "$(python3 "$src/contrib/examples/ring-look.py" "$place/ring" | tr '\n' ' ')" 'one two ' \
		"ring-look.py in $place"
done
# In a ring as small as can be messages go over its end.
expect_ok "$T/bin/ring-consumer" "$T/m/ring" 2

is_stopped() {
	ps -o stat= -p "$1" | grep -q T
}

say 'a log is followed, cut or not'
seq 1 100 >"$T/m/log"
"$T/bin/log-follower" "$T/m/log" 300 >"$T/got" &
follower=$!
STARTED+=("$follower")
for round in 1 2; do
	wait_for grep -qx "$((round * 100))" "$T/got"
	# What a ring log does: the oldest part goes at once, and it is the same file.
	kill -STOP "$follower"
	wait_for is_stopped "$follower"
	tail -n 20 "$T/m/log" >"$T/rest"
	cat "$T/rest" >"$T/m/log"
	kill -CONT "$follower"
	seq $((round * 100 + 1)) $((round * 100 + 100)) >>"$T/m/log"
done
wait_for is_gone "$follower"
wait "$follower"
cmp <(seq 1 300) "$T/got" || fail 'the follower'

say 'an alias pair'
for place in "${places[@]}"; do
	for run in 1 2; do
		expect_ok "$T/bin/alias-pair" "$place/pair"
		expect_text "runs so far: $run" "$OUT"
		expect_text 'Permission denied' "$OUT"
	done
done
if [ "${#places[@]}" -gt 1 ]; then
	for run in 1 2 3; do
		expect_equal "$(python3 "$src/contrib/examples/shared-counter.py" "$T/m")" "$run" shared-counter.py
	done
fi

say 'snapshots'
printf '%s\n' pear apple fig >"$T/m/fruit"
expect_ok "$T/bin/snapshot" "$T/m" create first 'of the library'
expect_errno 'File exists' "$T/bin/snapshot" "$T/m" create first
expect_errno 'No such file or directory' "$T/bin/snapshot" "$T/m" delete second
expect_errno 'No such device' "$T/bin/snapshot" "$T" list
expect_ok "$T/bin/snapshot" "$T/m/fruit" list
expect_equal "$(cut -f 1,4 "$OUT")" "first	of the library" list
now=$(date +%s)
when=$(cut -f 2 "$OUT")
[ $((now - when)) -ge 0 ] && [ $((now - when)) -lt 600 ] || fail "it was made at $when, and now it is $now"

say 'a private view'
echo zebra >>"$T/m/fruit"
expect_ok "$T/bin/private-view" "$T/m/.snapshots/first/fruit"
expect_equal "$(tr '\n' ' ' <"$OUT")" 'apple fig pear ' 'sorted'
expect_equal "$(tr '\n' ' ' <"$T/m/.snapshots/first/fruit")" 'pear apple fig ' 'the snapshot'
ln -s ".snapshots/first/fruit" "$T/m/link"
expect_ok "$T/bin/private-view" "$T/m/link"
(cd "$T/m/.snapshots/first" && "$T/bin/private-view" fruit >/dev/null)
# The live file does not do, whatever it is called.
expect_errno 'Stale file handle' "$T/bin/private-view" "$T/m/fruit"
expect_errno 'Stale file handle' "$T/bin/private-view" "$T/m/.snapshots/../fruit"

say 'any request'
expect_ok "$T/bin/snapshot" "$T/m" ask df
python3 -c 'import json, sys; assert json.load(open(sys.argv[1]))["frames_total"] > 0' "$OUT"
expect_errno 'Input/output error' "$T/bin/snapshot" "$T/m" ask nonsense
expect_text '"message"' "$OUT"
expect_errno 'Invalid argument' "$T/bin/snapshot" "$T/m" ask df '[1]'
expect_ok "$T/bin/snapshot" "$T/m" delete first
expect_ok "$T/bin/snapshot" "$T/m" list
[ ! -s "$OUT" ] || fail 'there is a snapshot still'
umount_pmfs "$T/m"
expect_errno 'No such device' "$T/bin/snapshot" "$T/m" list
check_image "$T/image"
