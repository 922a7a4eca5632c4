#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Installs what the tests need (Debian; nothing when all is there), builds pmfs in the named ways,
# from a copy of the sources in a temporary folder, and runs its tests.  The kinds, all of them when
# none is named:
#
#     gcc       gcc with debug checks; make check and make check-mount
#     clang     clang, with debug checks and as a release: builds without a warning
#     asan      address and undefined behaviour sanitizers; check-unit and check-mount-sanitized
#     tsan      thread sanitizer; the same
#     libfuse   libfuse 3.18 from contrib/build-libfuse.sh, io_uring switched on in the kernel's
#               fuse module for as long as it runs; make check-mount
#
#     run-tests.sh [--no-setup] [--timeout SECONDS] [--limit SECONDS] [--jobs N] [--keep] [KIND...]
#
# --no-setup installs nothing.  --timeout is for one test (300), --limit for all: kinds that would start later count as skipped.
# --keep leaves the temporary folder.  PMFS_LIBFUSE_PREFIX says where the libfuse of the last kind
# is or shall go; without it a new one is built in the temporary folder.
#
# The last line is "N passed, N failed, N skipped"; the exit status is 0 when nothing failed.
set -u
export LC_ALL=C

all_kinds=(gcc clang asan tsan libfuse)
kinds=()
jobs=$(nproc)
limit=0
keep=
setup=yes
export PMFS_TEST_TIMEOUT=${PMFS_TEST_TIMEOUT:-300}

usage() {
	sed -n '3,20s/^# \{0,1\}//p' "$0"
}

while [ $# -gt 0 ]; do
	case $1 in
	--timeout | --limit | --jobs)
		if ! [[ ${2-} =~ ^[1-9][0-9]*$ ]]; then
			echo "run-tests.sh: $1 needs a number" >&2
			exit 2
		fi
		case $1 in
		--timeout) PMFS_TEST_TIMEOUT=$2 ;;
		--limit) limit=$2 ;;
		--jobs) jobs=$2 ;;
		esac
		shift
		;;
	--keep) keep=yes ;;
	--no-setup) setup= ;;
	-h | --help)
		usage
		exit 0
		;;
	gcc | clang | asan | tsan | libfuse) kinds+=("$1") ;;
	*)
		echo "run-tests.sh: $1: no such kind or option" >&2
		exit 2
		;;
	esac
	shift
done
if [ "${#kinds[@]}" -eq 0 ]; then
	kinds=("${all_kinds[@]}")
fi

source_dir=$(cd "$(dirname "$0")/.." && pwd)
if [ -n "$setup" ]; then
	"$source_dir/contrib/setup-debian.sh" --tests --libfuse-build || exit 1
fi
work=$(mktemp -d "${TMPDIR:-/tmp}/pmfs-tests.XXXXXX") || exit 1
uring=/sys/module/fuse/parameters/enable_uring
uring_before=

# What a test left running or mounted, one line each, ended and unmounted.
sweep() {
	local exe pid mountpoint
	for exe in /proc/[0-9]*/exe; do
		case $(readlink "$exe" 2>/dev/null) in
		"$work"/build-*)
			pid=${exe#/proc/}
			pid=${pid%/exe}
			echo "still running: $(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null)"
			kill -KILL "$pid" 2>/dev/null
			;;
		esac
	done
	awk -v top="$work/" 'index($2, top) == 1 { print $2 }' /proc/self/mounts | sort -r |
		while IFS= read -r mountpoint; do
			echo "still mounted: $mountpoint"
			fusermount3 -uz "$mountpoint" 2>/dev/null || umount -l "$mountpoint"
		done
}

uring_restore() {
	if [ -n "$uring_before" ]; then
		echo "$uring_before" >"$uring"
		uring_before=
	fi
}

finish() {
	uring_restore
	sweep >/dev/null
	if [ -n "$keep" ]; then
		echo "kept: $work"
	else
		rm -rf "$work"
	fi
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# Others than root must get at what tests put into the temporary folder.
chmod 711 "$work"
mkdir "$work/src" "$work/tmp"
chmod 1777 "$work/tmp"
if git -C "$source_dir" rev-parse --is-inside-work-tree >/dev/null 2>&1; then
	(cd "$source_dir" && git ls-files -z --cached --others --exclude-standard |
		while IFS= read -r -d '' file; do
			[ -e "$file" ] && printf '%s\0' "$file"
		done | tar --no-recursion --null -T - -cf -) | tar -xf - -C "$work/src"
else
	cp -a "$source_dir/." "$work/src/"
fi

passed=0 failed=0 skipped=0	# of the kind that runs

# A step that is no test of its own: counts only when it fails.
step() {
	local name=$1 log
	shift
	log="$work/$kind-$name.log"
	if "$@" >"$log" 2>&1 </dev/null; then
		return 0
	fi
	failed=$((failed + 1))
	echo "$kind: $name failed: $*"
	grep -nE '(error|warning):' "$log" | head -n 20
	tail -n 40 "$log" | sed 's/^/    /'
	return 1
}

# Counts what the test harness of a finished make left behind, and shows what went wrong.
count_results() {
	local suite=$1 trs result log n=0
	while IFS= read -r trs; do
		while read -r result; do
			n=$((n + 1))
			case $result in
			PASS) passed=$((passed + 1)) ;;
			SKIP) skipped=$((skipped + 1)) ;;
			*)
				failed=$((failed + 1))
				log=${trs%.trs}.log
				echo "$kind: ${trs%.trs}: $result"
				tail -n 60 "$log" | sed 's/^/    /'
				;;
			esac
		done < <(sed -n 's/^:test-result: \([A-Z]*\).*/\1/p' "$trs")
	done < <(find . -name '*.trs' | sort)
	find . -name '*.trs' -delete
	if [ "$n" -eq 0 ]; then
		failed=$((failed + 1))
		echo "$kind: make $suite ran no test"
		tail -n 40 "$work/$kind-$suite.log" | sed 's/^/    /'
	fi
}

# run_suite TARGET [ENV...]: make TARGET, in the build directory.
run_suite() {
	local suite=$1 status=0 left before=$failed
	shift
	env TMPDIR="$work/tmp" "$@" make -k "-j$jobs" "$suite" >"$work/$kind-$suite.log" 2>&1 \
		</dev/null || status=$?
	count_results "$suite"
	if [ "$status" -ne 0 ] && [ "$failed" -eq "$before" ]; then
		failed=$((failed + 1))
		echo "$kind: make $suite: exit status $status"
		tail -n 40 "$work/$kind-$suite.log" | sed 's/^/    /'
	fi
	left=$(sweep)
	if [ -n "$left" ]; then
		failed=$((failed + 1))
		printf '%s: make %s left behind:\n%s\n' "$kind" "$suite" "$left"
	fi
}

# build NAME ENV... -- CONFIGURE-ARGUMENTS...: leaves the shell in the build directory.
build() {
	local dir="$work/build-$kind-$1" environment=()
	shift
	while [ "$1" != -- ]; do
		environment+=("$1")
		shift
	done
	shift
	mkdir -p "$dir" && cd "$dir" &&
		step configure env "${environment[@]}" "$work/src/configure" "$@" &&
		step build make "-j$jobs" all
}

check_programs() {
	make "-j$jobs" check TESTS=
}

run_gcc() {
	build debug CC=gcc -- --enable-debug CFLAGS='-g -O2' || return
	run_suite check
	run_suite check-mount
	# Not a failure when it can't be told.
	find tests -name '*.log' -exec "$work/src/tests/tries" {} + | sed 's/^/gcc: tried /'
}

run_clang() {
	build debug CC=clang -- --enable-debug && step build-tests check_programs &&
		passed=$((passed + 1))
	build release CC=clang -- --disable-faults && step build-tests check_programs &&
		passed=$((passed + 1))
}

run_sanitized() {
	build debug CC=gcc -- --enable-debug "--enable-sanitizers=$1" CFLAGS='-g -O1' || return
	shift
	# Long random tests have done their work in the other kinds.
	run_suite check-unit PMFS_TEST_SHARE=20 "$@"
	run_suite check-mount-sanitized "$@"
}

run_asan() {
	run_sanitized address,undefined
}

run_tsan() {
	local fixed=()
	# The shadow memory of this sanitizer does not fit every random layout of addresses.
	if setarch "$(uname -m)" -R true 2>/dev/null; then
		fixed=(setarch "$(uname -m)" -R)
	fi
	run_sanitized thread "${fixed[@]}"
}

run_libfuse() {
	local prefix=${PMFS_LIBFUSE_PREFIX:-$work/libfuse}
	step libfuse "$work/src/contrib/build-libfuse.sh" "$prefix" || return
	build debug CC=gcc "PKG_CONFIG_PATH=$prefix/lib/pkgconfig" -- --enable-debug || return
	if [ -w "$uring" ]; then
		uring_before=$(cat "$uring")
		echo 1 >"$uring"
		run_suite check-mount PMFS_TEST_IO_URING=1
	else
		echo "libfuse: this kernel does not let fuse use io_uring ($uring)"
		run_suite check-mount
	fi
	uring_restore
}

begin=$SECONDS
all_passed=0 all_failed=0 all_skipped=0
table=

kind=prepare
if [ ! -x "$work/src/configure" ] && ! step bootstrap "$work/src/bootstrap"; then
	echo "0 passed, 1 failed, 0 skipped"
	exit 1
fi

for kind in "${kinds[@]}"; do
	passed=0 failed=0 skipped=0 started=$SECONDS
	if [ "$limit" -gt 0 ] && [ $((SECONDS - begin)) -ge "$limit" ]; then
		echo "$kind: not run, more than $limit s have passed"
		skipped=1
	else
		"run_$kind"
		cd "$work" || exit 1
		[ -n "$keep" ] || rm -rf "$work"/build-"$kind"-*
	fi
	echo "$kind: $passed passed, $failed failed, $skipped skipped, $((SECONDS - started)) s"
	table+=$(printf '%-10s %7d %7d %8d %6d s' "$kind" "$passed" "$failed" "$skipped" \
		"$((SECONDS - started))")$'\n'
	all_passed=$((all_passed + passed))
	all_failed=$((all_failed + failed))
	all_skipped=$((all_skipped + skipped))
done

printf '\n%-10s %7s %7s %8s %8s\n%s\n' kind passed failed skipped time "$table"
echo "$all_passed passed, $all_failed failed, $all_skipped skipped"
[ "$all_failed" -eq 0 ]
