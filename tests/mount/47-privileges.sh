#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# What the daemon of root keeps, and what others may ask of it.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"
! ldd "$(command -v pmfs)" | grep -q libtsan || skip "the thread sanitizer has a thread of its own, from before anything is dropped"
[ "$(id -u)" = 0 ] || skip 'needs root'
need setpriv python3
M=$T/mnt
chmod 755 "$T"
make_image "$T/img" 64M
mount_pmfs "$T/img" "$M" allow_other

say 'capabilities of every thread'
python3 - "$DAEMON" <<'PY'
import os, sys
pid = sys.argv[1]
kept = 1 << 21 | 1 << 1 | 1 << 2  # SYS_ADMIN, DAC_OVERRIDE, DAC_READ_SEARCH
threads = os.listdir(f"/proc/{pid}/task")
assert len(threads) > 3, threads
for tid in threads:
    status = dict(line.rstrip("\n").split(":\t", 1) for line in open(f"/proc/{pid}/task/{tid}/status") if ":\t" in line)
    for field in ("CapEff", "CapPrm", "CapInh", "CapBnd"):
        assert int(status[field], 16) & ~kept == 0, (tid, status["Name"], field, status[field])
    assert status["NoNewPrivs"] == "1", (tid, status["Name"])
PY

say 'it still does all that it has to'
expect_ok pmfs-snap create "$M" one
mkdir "$M/secret"
chown 65534:65534 "$M/secret"
chmod 700 "$M/secret" "$M"
expect_ok pmfs-snap create "$M" two
expect_ok pmfs-ctl sync "$M"
chmod 755 "$M"

say 'another user looks, and changes nothing'
as_nobody() {
	setpriv --reuid=65534 --regid=65534 --clear-groups "$@"
}
as_nobody env "PATH=$PATH" pmfs-ctl status "$M" >/dev/null 2>"$ERR" || skip 'another user does not reach the programs'
for request in 'pmfs-ctl scrub DIR start' 'pmfs-ctl scrub DIR stop' 'pmfs-ctl dedup DIR start' 'pmfs-snap create DIR x' 'pmfs-snap delete DIR one' \
	'pmfs-snap rename DIR one other'; do
	read -ra words <<<"${request/DIR/$M}"
	expect_fail 9 as_nobody env "PATH=$PATH" "${words[@]}"
done
expect_ok pmfs-snap list "$M"
umount_pmfs "$M"
check_image "$T/img"
