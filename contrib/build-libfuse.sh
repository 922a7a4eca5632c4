#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Builds libfuse 3.18 or later with io_uring from Debian's source package and installs it under
# PREFIX, beside the packaged one and without touching it.  Then:
#
#     PKG_CONFIG_PATH=PREFIX/lib/pkgconfig ./configure
#
# What it needs is installed by contrib/setup-debian.sh --libfuse-build.  The package comes from
# the Debian mirror that apt on this machine uses.  Does nothing when PREFIX has it already.
set -eu

if [ $# -ne 1 ] || [ "${1#-}" != "$1" ]; then
	echo "usage: build-libfuse.sh PREFIX" >&2
	exit 2
fi
mkdir -p "$1"
prefix=$(cd "$1" && pwd)
export PKG_CONFIG_PATH="$prefix/lib/pkgconfig"

is_there() {
	[ "$(pkg-config --variable=prefix fuse3 2>/dev/null)" = "$prefix" ] &&
		pkg-config --atleast-version=3.18 fuse3 && [ -e "$prefix/.with-io_uring" ]
}
if is_there; then
	exit 0
fi

for tool in apt-get dpkg-source meson ninja pkg-config; do
	command -v "$tool" >/dev/null || {
		echo "build-libfuse.sh: no $tool; run contrib/setup-debian.sh --libfuse-build" >&2
		exit 1
	}
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
mkdir -p apt/lists/partial

keyring=/usr/share/keyrings/debian-archive-keyring.gpg
options=
if [ -e "$keyring" ]; then
	options="[signed-by=$keyring]"
fi
# A mirror that stands still is good enough here: signatures are checked, the date is not.
apt=(apt-get -q -o Acquire::Check-Valid-Until=false -o "Dir::Etc::sourcelist=$work/apt/src.list" -o Dir::Etc::sourceparts=-
	-o "Dir::State::lists=$work/apt/lists" -o "Dir::Cache=$work/apt"
	-o APT::Sandbox::User=root -o Acquire::Retries=3)

# apt itself knows its sources, in either of the two styles they can be written in.
# shellcheck disable=SC2016 # apt expands it
mapfile -t mirrors < <(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' |
	grep -v security | awk '!seen[$0]++')
if [ "${#mirrors[@]}" -eq 0 ]; then
	echo "build-libfuse.sh: apt on this machine has no package sources" >&2
	exit 1
fi

got=
for mirror in "${mirrors[@]}"; do
	for suite in forky sid; do
		echo "deb-src $options $mirror $suite main" >apt/src.list
		rm -rf apt/lists/* fuse3[-_]*
		mkdir -p apt/lists/partial
		if "${apt[@]}" update && "${apt[@]}" source fuse3; then
			version=$(find . -maxdepth 1 -type d -name 'fuse3-*' -printf '%f')
			version=${version#fuse3-}
			if dpkg --compare-versions "$version" ge 3.18; then
				got=$version
				break 2
			fi
		fi >>log 2>&1 </dev/null
	done
done
if [ -z "$got" ]; then
	cat log >&2
	echo "build-libfuse.sh: no source of fuse3 3.18 or later on ${mirrors[*]}" >&2
	exit 1
fi

cd "fuse3-$got"
if ! { meson setup build "--prefix=$prefix" --libdir=lib --buildtype=release -Dexamples=false \
	-Dtests=false -Duseroot=false -Dinitscriptdir= "-Dudevrulesdir=$prefix/udev" &&
	ninja -C build install; } >../log 2>&1 </dev/null; then
	tail -n 50 ../log >&2
	echo "build-libfuse.sh: libfuse $got does not build" >&2
	exit 1
fi
# Without liburing or libnuma the build goes on without a word and without the rings.
if ! grep -q '#define HAVE_URING' build/fuse_config.h; then
	echo "build-libfuse.sh: libfuse $got was built without io_uring (liburing-dev, libnuma-dev)" >&2
	exit 1
fi
touch "$prefix/.with-io_uring"
is_there
echo "libfuse $got with io_uring is in $prefix"
