#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Installs what pmfs needs on Debian, as root or through sudo.  Says nothing when all is there.
#
#     setup-debian.sh                   to build and use it
#     setup-debian.sh --tests           ... and to run all of its tests
#     setup-debian.sh --libfuse-build   ... and what contrib/build-libfuse.sh needs
set -eu

packages=(
	autoconf automake fuse3 gcc libc6-dev libfuse3-dev libjansson-dev libxxhash-dev make
	pkg-config
)
for arg in "$@"; do
	case $arg in
	--tests)
		packages+=(acl attr clang dbench fio fsmark git jq libcmocka-dev lmdb-utils mandoc procps python3
			python3-lmdb python3-venv python3-xxhash redis-server rsync sqlite3 stress-ng util-linux
			xz-utils)
		;;
	--libfuse-build)
		packages+=(ca-certificates debian-archive-keyring dpkg-dev g++ libnuma-dev
			liburing-dev meson ninja-build)
		;;
	-h | --help)
		sed -n '3,8s/^# \{0,1\}//p' "$0"
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
if [ "${#missing[@]}" -eq 0 ]; then
	exit 0
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
	command -v sudo >/dev/null || {
		echo "setup-debian.sh: neither root nor sudo; to be installed: ${missing[*]}" >&2
		exit 1
	}
	as_root=(sudo)
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
echo "installing ${missing[*]}"
apt=(env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Acquire::Retries=3
	-o DPkg::Lock::Timeout=120)
if ! "${as_root[@]}" "${apt[@]}" update >"$log" 2>&1 </dev/null ||
	! "${as_root[@]}" "${apt[@]}" install --no-install-recommends "${missing[@]}" \
		>>"$log" 2>&1 </dev/null; then
	cat "$log" >&2
	echo "setup-debian.sh: could not install ${missing[*]}" >&2
	exit 1
fi
