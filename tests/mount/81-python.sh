#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# A Python virtual environment on pmfs: made, a package built and installed into it, run, compiled, removed, and taken back from a snapshot.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"
need python3
python3 -c 'import venv, ensurepip' 2>/dev/null || skip "python3 has no venv with ensurepip"

M=$T/mnt
export HOME=$T PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INDEX=1 PIP_NO_INPUT=1
unset PYTHONPATH PYTHONHOME
mount_pmfs ram "$M" size=1G

say "a virtual environment"
python3 -m venv "$M/env"
"$M/env/bin/python" -c 'import sys; assert sys.prefix != sys.base_prefix and sys.prefix == sys.argv[1], sys.prefix' "$M/env"
"$M/env/bin/pip" --version >/dev/null

say "a wheel, installed, used from another process, and removed without a trace"
mkdir -p "$M/src/hello-1.0.dist-info"
cat >"$M/src/hello.py" <<'PY'
def main():
    print("hello from", __file__)
PY
cd "$M/src"
printf 'Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n' >hello-1.0.dist-info/WHEEL
printf 'Metadata-Version: 2.1\nName: hello\nVersion: 1.0\n' >hello-1.0.dist-info/METADATA
printf '[console_scripts]\nhello = hello:main\n' >hello-1.0.dist-info/entry_points.txt
printf 'hello.py,,\nhello-1.0.dist-info/WHEEL,,\nhello-1.0.dist-info/METADATA,,\nhello-1.0.dist-info/entry_points.txt,,\nhello-1.0.dist-info/RECORD,,\n' \
	>hello-1.0.dist-info/RECORD
python3 -m zipfile -c ../hello-1.0-py3-none-any.whl hello.py hello-1.0.dist-info/
cd "$T"
find "$M/env" ! -name '*.pyc' ! -name __pycache__ | sort >"$T/before"
"$M/env/bin/pip" install -q "$M/hello-1.0-py3-none-any.whl"
said=$("$M/env/bin/hello")
[[ $said == "hello from $M/env/lib/"*/site-packages/hello.py ]] || fail "the program says: $said"
"$M/env/bin/pip" check >/dev/null

say "compiled files are used: their times fit"
"$M/env/bin/python" -m compileall -q "$M/env/lib"
pyc=$(find "$M/env/lib" -path '*__pycache__/hello*.pyc')
before=$(stat -c '%i %Y' "$pyc")
"$M/env/bin/hello" >/dev/null
expect_equal "$(stat -c '%i %Y' "$pyc")" "$before" "the compiled file after another run"

say "what pip removes is gone, and comes back from a snapshot"
pmfs-snap -q create "$M" with
"$M/env/bin/pip" uninstall -q -y hello
find "$M/env" ! -name '*.pyc' ! -name __pycache__ | sort | cmp - "$T/before" || fail "pip left files behind"
cp -a "$M/.snapshots/with/env/." "$M/env/"
expect_equal "$("$M/env/bin/hello")" "$said" "the program out of the snapshot"
umount_pmfs "$M"
