# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash disable=SC2034,SC2154
# What bench-ring and bench-views share: a folder, turns, and rows.  Who sources it has set $name, and defines usage().

die() {
	echo "$name: $*" >&2
	exit 1
}

rounds=5 scale=1 options='' json=''
while [ $# -gt 0 ]; do
	case $1 in
	--rounds) rounds=${2-}; shift ;;
	--quick) rounds=3 scale=10 ;;
	--option) options=${2-}; shift ;;
	--json) json=1 ;;
	-h | --help) usage; exit 0 ;;
	*) usage >&2; exit 2 ;;
	esac
	shift || { usage >&2; exit 2; }
done
[[ $rounds =~ ^[1-9][0-9]*$ ]] || die "--rounds needs a number"

[ -f "${PMFS_BUILD:-}/libpmfs.a" ] || die "set PMFS_BUILD to a build directory"
[ "$(id -u)" -eq 0 ] || die "needs root, to mount a tmpfs"
PATH=$PMFS_BUILD:$PATH
here=$(cd "$(dirname "$0")" && pwd)

work=$(mktemp -d "${TMPDIR:-/var/tmp}/pmfs-bench.XXXXXX")
cleanup() {
	for dir in "$work"/*/; do
		! mountpoint -q "$dir" || umount "$dir" || umount -l "$dir"
	done
	rm -rf --one-file-system "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM
mkdir "$work/pmfs" "$work/tmpfs" "$work/results"

# compile SOURCE ARGUMENT...: to $work/ops
compile() {
	local source=$1
	shift
	"${CC:-cc}" -std=gnu17 -O2 -D_GNU_SOURCE -I"$here/../include" -o "$work/ops" "$here/$source" "$@" ||
		die "can't compile $source"
}

has_passthrough() { # DIR
	pmfs-ctl --json status "$1" | grep -q '"passthrough": *true'
}

heading() {
	[ -n "$json" ] || printf '%s\n%-12s %9s  %-12s %12s %-6s %16s  %s\n' "$1" what bytes kind median unit 'lowest, highest' "$2"
}

# compare WHAT BYTES UNIT better|worse KIND...: in each round every KIND once, by `one WHAT BYTES KIND`, which prints a number, or "-"
# where it can't be had.  Then a row for each: the median, the lowest and the highest of the rounds, and how many times better the first
# kind is.  "worse": the higher number is the worse one.
compare() {
	local what=$1 bytes=$2 unit=$3 way=$4 round kind base='' median low high ratio
	shift 4
	for ((round = 0; round < rounds; round++)); do
		for kind; do
			one "$what" "$bytes" "$kind" >>"$work/results/$what.$bytes.$kind" || die "$what of $bytes bytes by $kind failed"
		done
	done
	for kind; do
		read -r median low high < <(sort -g "$work/results/$what.$bytes.$kind" | awk '{ v[NR] = $1 }
			END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2, v[1], v[NR] }')
		if grep -qx -- - "$work/results/$what.$bytes.$kind"; then
			median=null low=null high=null ratio=null
		else
			base=${base:-$median}
			ratio=$(awk -v a="$base" -v b="$median" -v w="$way" 'BEGIN { printf "%.2f", w == "worse" ? b / a : a / b }')
		fi
		if [ -n "$json" ]; then
			printf '{"benchmark":"%s","what":"%s","bytes":%s,"kind":"%s","unit":"%s","median":%s,"lowest":%s,"highest":%s,"rounds":%s,"ratio":%s}\n' \
				"$name" "$what" "$bytes" "$kind" "$unit" "$median" "$low" "$high" "$rounds" "$ratio"
		elif [ "$median" = null ]; then
			printf '%-12s %9s  %-12s %12s\n' "$what" "${bytes#0}" "$kind" 'not offered'
		else
			awk -v w="$what" -v b="${bytes#0}" -v k="$kind" -v m="$median" -v u="$unit" -v l="$low" -v h="$high" -v r="$ratio" 'BEGIN {
				f = m < 1000 ? "%.2f" : "%.0f"
				printf "%-12s %9s  %-12s %12s %-6s %16s  %s\n", w, b, k, sprintf(f, m), u, sprintf(f ", " f, l, h), r
			}'
		fi
	done
}
