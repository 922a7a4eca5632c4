#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Installs what pmfs needs on Debian, as root or through sudo.  Says nothing when all is there.
#
#     setup-debian.sh                   to build and use it
#     setup-debian.sh --tests           ... and to run all of its tests
#     setup-debian.sh --fuzzers         ... and to configure with --enable-fuzzers
#     setup-debian.sh --libfuse-build   ... and what contrib/build-libfuse.sh needs
#     setup-debian.sh --bench           ... and the peers that contrib/bench compares with
set -eu

packages=(
	autoconf automake fuse3 gcc libc6-dev libfuse3-dev libjansson-dev libxxhash-dev make
	pkg-config
)
# Without these a few tests skip: not worth a failure.
optional=()
for arg in "$@"; do
	case $arg in
	--tests)
		packages+=(acl attr clang dbench e2fsprogs fio fsmark git jq libcmocka-dev lmdb-utils mandoc procps python3
			python3-lmdb python3-venv python3-xxhash redis-server rsync sqlite3 stress-ng util-linux
			xz-utils)
		compgen -G '/usr/lib/postgresql/*/bin/pgbench' >/dev/null || optional+=(postgresql)
		# Some have Node.js from elsewhere, which Debian's npm does not go with.
		command -v node >/dev/null || command -v npm >/dev/null || optional+=(nodejs npm)
		;;
	--fuzzers)
		packages+=(clang libclang-rt-dev libcmocka-dev)
		;;
	--libfuse-build)
		packages+=(ca-certificates debian-archive-keyring dpkg-dev g++ libnuma-dev
			liburing-dev meson ninja-build)
		;;
	--bench)
		packages+=(bindfs btrfs-progs duperemove e2fsprogs fuse-overlayfs fuse2fs git mount python3 tar
			unionfs-fuse xfsprogs)
		;;
	-h | --help)
		sed -n '3,9s/^# \{0,1\}//p' "$0"
		exit 0
		;;
	*)
		echo "setup-debian.sh: $arg: unknown option" >&2
		exit 2
		;;
	esac
done

missing=()
for package in "${packages[@]}"; do
	# "ii": wanted and installed.
	[ "$(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null)" = 'ii ' ] ||
		missing+=("$package")
done
if [ $((${#missing[@]} + ${#optional[@]})) -eq 0 ]; then
	exit 0
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
	command -v sudo >/dev/null || {
		echo "setup-debian.sh: neither root nor sudo; to be installed: ${missing[*]} ${optional[*]}" >&2
		[ "${#missing[@]}" -eq 0 ] || exit 1
		exit 0
	}
	as_root=(sudo)
fi

log=$(mktemp)
# PostgreSQL's programs are wanted, and no server that runs.
no_cluster=/etc/postgresql-common/createcluster.d/pmfs-tests.conf
made_no_cluster=
finish() {
	rm -f "$log"
	[ -z "$made_no_cluster" ] || "${as_root[@]}" rm -f "$no_cluster"
}
trap finish EXIT
apt=(env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Acquire::Retries=3
	-o DPkg::Lock::Timeout=120)

install() {
	"${as_root[@]}" "${apt[@]}" install --no-install-recommends "$@" >>"$log" 2>&1 </dev/null
}

echo "installing" "${missing[@]}" "${optional[@]}"
if ! "${as_root[@]}" "${apt[@]}" update >"$log" 2>&1 </dev/null ||
	{ [ "${#missing[@]}" -gt 0 ] && ! install "${missing[@]}"; }; then
	cat "$log" >&2
	[ "${#missing[@]}" -gt 0 ] || exit 0
	echo "setup-debian.sh: could not install ${missing[*]}" >&2
	exit 1
fi
if [[ " ${optional[*]} " = *" postgresql "* ]] && [ ! -e "$no_cluster" ]; then
	made_no_cluster=yes
	"${as_root[@]}" mkdir -p "${no_cluster%/*}"
	echo 'create_main_cluster = false' | "${as_root[@]}" tee "$no_cluster" >/dev/null
fi
for package in "${optional[@]}"; do
	install -o Dpkg::Options::=--force-unsafe-io "$package" ||
		echo "setup-debian.sh: could not install $package; the tests that need it skip"
done
