# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# What the mount tests share.  A test begins with
#
#	. "$(dirname "$0")/lib.sh"
#
# and has a directory of its own in $T, which goes away, with all that is mounted below it, when
# the test ends.  The programs come from $PMFS_BUILD (make sets PMFS_BUILDDIR), else from PATH.
# PMFS_TEST_OPTIONS are mount options for every mount.
# A test fails with fail MESSAGE or when a command fails that nobody asks about (set -e).
set -euo pipefail

PMFS_BUILD=${PMFS_BUILD:-${PMFS_BUILDDIR-}}
if [ -n "$PMFS_BUILD" ]; then
	PATH=$PMFS_BUILD:$PATH
fi
export PATH LC_ALL=C

# How long a condition may take to come true, in tenths of a second.
WAIT_TENTHS=${PMFS_TEST_WAIT_TENTHS:-600}

say() {
	echo "--- $*"
}

fail() {
	echo "FAIL: $*" >&2
	exit 1
}

skip() {
	echo "SKIP: $*"
	exit 77
}

# need PROGRAM...: skip the test where one is missing.
need() {
	local program
	for program; do
		command -v "$program" >/dev/null || skip "there is no $program"
	done
}

[ -c /dev/fuse ] && : 2>/dev/null <>/dev/fuse || skip 'there is no /dev/fuse that can be opened'
need pmfs fusermount3

T=$(mktemp -d "${TMPDIR:-/tmp}/pmfs-test.XXXXXX")
T=$(realpath "$T")
# Where the daemons that the test starts in front write to.
LOGS=$T/logs
mkdir "$LOGS"
STARTED=()

# mounts_below DIR: mount points at or below it, the innermost first.
mounts_below() {
	awk -v dir="$1" '$5 == dir || index($5, dir "/") == 1 { print $5 }' /proc/self/mountinfo | tac
}

is_mounted() {
	awk -v dir="$1" '$5 == dir { found = 1 } END { exit !found }' /proc/self/mountinfo
}

# Does this process (still) belong to the test?  Its number may be somebody else's by now.
is_ours() {
	grep -qaF "$T" "/proc/$1/cmdline" 2>/dev/null
}

cleanup() {
	local status=$? dir pid
	trap - EXIT INT TERM HUP
	set +e
	for pid in "${STARTED[@]}"; do
		! is_ours "$pid" || kill -CONT "$pid" 2>/dev/null
	done
	cd /
	while read -r dir; do
		fusermount3 -u "$dir" 2>/dev/null || umount "$dir" 2>/dev/null ||
			fusermount3 -uz "$dir" 2>/dev/null || umount -l "$dir"
	done < <(mounts_below "$T")
	for pid in "${STARTED[@]}"; do
		! is_ours "$pid" || wait_gone "$pid" || ! is_ours "$pid" || kill -KILL "$pid" 2>/dev/null
	done
	if [ "$status" -ne 0 ] && [ "$status" -ne 77 ]; then
		tail -n 50 "$LOGS"/* 2>/dev/null
	fi
	rm -rf --one-file-system "$T"
	exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# wait_for COMMAND...: until it succeeds, or fail.
wait_for() {
	local n
	for ((n = 0; n < WAIT_TENTHS; n++)); do
		if "$@" >/dev/null 2>&1; then
			return 0
		fi
		sleep 0.1
	done
	fail "waited in vain for: $*"
}

is_gone() {
	# A zombie has let go of everything; its parent is none of our business.
	! kill -0 "$1" 2>/dev/null || [ "$(ps -o stat= -p "$1" | cut -c1)" = Z ]
}

# wait_gone PID: 0 when the process has ended within the bound.
wait_gone() {
	local n
	for ((n = 0; n < WAIT_TENTHS; n++)); do
		if is_gone "$1"; then
			return 0
		fi
		sleep 0.1
	done
	return 1
}

# join_options A B: comma separated, empty ones left out.
join_options() {
	local all='' part
	for part; do
		if [ -n "$part" ]; then
			all=${all:+$all,}$part
		fi
	done
	echo "$all"
}

# mount_pmfs SOURCE DIR [OPTIONS [ARGUMENT...]]: mount, and remember the daemon.  SOURCE is an
# image or "ram".  Its pid is then in $DAEMON.
mount_pmfs() {
	local source=$1 dir=$2 options
	options=$(join_options "${3-}" "${PMFS_TEST_OPTIONS-}")
	shift 2
	[ $# -eq 0 ] || shift
	mkdir -p "$dir"
	pmfs "$source" "$dir" ${options:+-o "$options"} "$@" || fail "can't mount $source on $dir"
	is_mounted "$dir" || fail "pmfs said that $dir is mounted, but it is not"
	DAEMON=$(daemon_of "$dir")
	STARTED+=("$DAEMON")
}

# daemon_of DIR: the pid of the daemon that serves it.
daemon_of() {
	local base info
	for base in /run/pmfs "${XDG_RUNTIME_DIR:-/nonexistent}/pmfs" "/tmp/pmfs-$(id -u)"; do
		for info in "$base"/*/info.json; do
			[ -f "$info" ] || continue
			if grep -qF "\"dir\": \"$1\"" "$info"; then
				kill -0 "$(basename "$(dirname "$info")")" 2>/dev/null || continue
				basename "$(dirname "$info")"
				return 0
			fi
		done
	done
	fail "no daemon says that it serves $1"
}

# make_image FILE [SIZE]: an empty image.
make_image() {
	mkfs.pmfs -q --size "${2:-1G}" "$1" || fail "can't make the image $1"
}

# umount_pmfs DIR: unmount, and wait for its daemon to end.
umount_pmfs() {
	local pid
	pid=$(daemon_of "$1")
	umount "$1" || fail "can't unmount $1"
	wait_gone "$pid" || fail "the daemon $pid of $1 goes on after the mount is gone"
}

# kill_pmfs DIR: kill -9 the daemon and take the dead mount away.
kill_pmfs() {
	local pid
	pid=$(daemon_of "$1")
	kill -KILL "$pid"
	wait_gone "$pid" || fail "the daemon $pid does not die"
	fusermount3 -uz "$1" || fail "can't take the dead mount $1 away"
}

# check_image FILE: fsck.pmfs finds nothing.
check_image() {
	fsck.pmfs -n "$1" >"$T/fsck.out" 2>&1 || {
		cat "$T/fsck.out"
		fail "fsck.pmfs -n $1 is not clean"
	}
}

# run_status COMMAND...: run it, with its output in $OUT and $ERR (file names) and its exit status in $STATUS.
OUT=$T/out ERR=$T/err STATUS=0
run_status() {
	STATUS=0
	"$@" >"$OUT" 2>"$ERR" || STATUS=$?
}

# expect_fail STATUS COMMAND...: it fails with just this status and says why in one line.
expect_fail() {
	local want=$1 lines
	shift
	run_status "$@"
	if [ "$STATUS" -ne "$want" ]; then
		cat "$OUT" "$ERR"
		fail "exit status $STATUS instead of $want: $*"
	fi
	lines=$(wc -l <"$ERR")
	if [ "$lines" -ne 1 ]; then
		cat "$ERR"
		fail "$lines lines on stderr instead of one: $*"
	fi
}

# expect_ok COMMAND...: it succeeds and stderr stays empty.
expect_ok() {
	run_status "$@"
	if [ "$STATUS" -ne 0 ] || [ -s "$ERR" ]; then
		cat "$OUT" "$ERR"
		fail "exit status $STATUS: $*"
	fi
}

# expect_errno TEXT COMMAND...: it fails and its message has this text of strerror(3).
expect_errno() {
	local text=$1
	shift
	run_status "$@"
	[ "$STATUS" -ne 0 ] || fail "should have failed: $*"
	grep -qF -- "$text" "$ERR" || {
		cat "$ERR"
		fail "no \"$text\" from: $*"
	}
}

# expect_text TEXT [FILE]: FILE ($ERR) has this text.
expect_text() {
	grep -qF -- "$1" "${2:-$ERR}" || {
		cat "${2:-$ERR}"
		fail "no \"$1\" in the output"
	}
}

expect_equal() {
	[ "$1" = "$2" ] || fail "${3:-value}: \"$1\" instead of \"$2\""
}

# same_tree A B: equal in names, contents, types, modes, owners, sizes and modification times.
tree_sums() {
	(
		cd "$1"
		find . -mindepth 1 ! -type d -printf '%P %y %m %U %G %s %T@ %l\n' | LC_ALL=C sort
		find . -mindepth 1 -type d -printf '%P %y %m %U %G\n' | LC_ALL=C sort
		find . -type f -print0 | LC_ALL=C sort -z | xargs -0r sha256sum
	)
}

same_tree() {
	tree_sums "$1" >"$T/tree.a"
	tree_sums "$2" >"$T/tree.b"
	if ! cmp -s "$T/tree.a" "$T/tree.b"; then
		diff "$T/tree.a" "$T/tree.b" | head -20 || true
		fail "$1 and $2 differ"
	fi
}
