#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
#
# demo.sh - from a fresh checkout to the main job: install what is needed, build, mount, write, snapshot, change, look back, duplicate,
# merge the duplicates, pull the plug.  Leaves nothing behind but the build in build/.
set -euo pipefail

cd "$(dirname "$0")/.."
top=$PWD
build=${PMFS_BUILD:-$top/build}

if [ -t 1 ]; then bold=$'\e[1m' dim=$'\e[2m' off=$'\e[0m'; else bold='' dim='' off=''; fi
say() { printf '\n%s%s%s\n' "$bold" "$*" "$off"; }
show() {
	printf '%s$ %s%s\n' "$dim" "${*//"$work/"/}" "$off"
	"$@"
}
quietly() { # LOG COMMAND…: show the log only when it fails
	local log=$1
	shift
	"$@" >"$log" 2>&1 || {
		tail -n 40 "$log" >&2
		echo "demo.sh: $1 failed; the whole log is in $log" >&2
		trap - EXIT
		exit 1
	}
}

# The daemon writes its last commit after the mount has gone.
wait_gone() {
	local i
	for ((i = 0; i < 200; i++)); do
		if [ -z "$pid" ] || ! kill -0 "$pid" 2>/dev/null; then
			return
		fi
		sleep 0.1
	done
}

# The one that serves our mount; there may be others on this machine.
daemon() {
	pmfs --json | grep -o "\"dir\":\"$work/tree\"[^}]*" | grep -o '"pid":[0-9]*' | cut -d: -f2
}

work=$(mktemp -d "${TMPDIR:-/tmp}/pmfs-demo.XXXXXX")
pid=''
cleanup() {
	if mountpoint -q "$work/tree"; then
		umount "$work/tree" 2>/dev/null || fusermount3 -uz "$work/tree" || true
	fi
	wait_gone
	rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

say "Installing what is needed, building (about a minute)"
quietly "$work/setup.log" contrib/setup-debian.sh
if [ -z "${PMFS_BUILD:-}" ]; then
	[ -x configure ] || quietly "$work/bootstrap.log" ./bootstrap
	mkdir -p "$build"
	cd "$build"
	[ -f Makefile ] || quietly "$work/configure.log" "$top/configure"
	quietly "$work/make.log" make -j"$(nproc)"
fi
cd "$work"
PATH=$build:$PATH
pmfs --version | head -n 1
if [ ! -c /dev/fuse ]; then
	echo "demo.sh: this machine has no /dev/fuse, so nothing can be mounted; load the fuse module or run it elsewhere" >&2
	exit 1
fi

say "1. An image file, mounted like any other directory"
mkdir tree
show pmfs store.pmfs tree --create --size 4G
pid=$(daemon)
df -h --output=fstype,size,used,avail,target tree | sed "s|$work/||"

say "2. Ordinary files, from any program"
show cp -a "$top/src" tree/project
echo "the plan: ship it" >tree/project/PLAN
show sh -c 'find tree/project -type f | wc -l'

say "3. A snapshot is one command, whatever the size of the tree"
show pmfs-snap create tree before -m "all is well"

say "4. Change and delete"
show sh -c 'echo "the plan: rewrite everything" >tree/project/PLAN'
show rm -r tree/project/store
show ls tree/project

say "5. The snapshot has it all as it was"
show pmfs-snap list tree
show cat tree/.snapshots/before/project/PLAN
show diff -rq "$top/src/store" tree/.snapshots/before/project/store
echo "no difference"
show cp -a tree/.snapshots/before/project/store tree/project/

say "6. Two more copies, and what they take once equal pages are merged"
head -c 64M /dev/urandom >tree/dataset.0
# dd reads and writes; cat and cp would share the pages right away (copy_file_range).
for n in 1 2; do dd if=tree/dataset.0 of="tree/dataset.$n" bs=1M status=none; done
show pmfs-ctl sync tree
show pmfs-ctl df tree
show pmfs-ctl dedup tree start
show pmfs-ctl dedup tree wait
show pmfs-ctl df tree
cmp tree/dataset.0 tree/dataset.2
echo "the copies are still equal, and each can be changed without the others"

say "7. kill -9, and nothing that was synced is lost"
echo "written and synced" >tree/letter
show sync tree/letter
show kill -9 "$pid"
fusermount3 -uz tree
show pmfs store.pmfs tree
pid=$(daemon)
show cat tree/letter
show umount tree
wait_gone
show fsck.pmfs -n store.pmfs

say "That was it.  Yours:  $build/pmfs ~/store.pmfs ~/tree --create --size 10G"
echo "(make install puts the programs and their manual pages in place; man pmfs says the rest)"
