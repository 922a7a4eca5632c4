#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# The control socket and clients that mean no good: each gets an error or is cut off, the daemon and its other clients go on.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"
need python3
M=$T/mnt
mount_pmfs ram "$M" size=64M
rundir=$(dirname "$(readlink "$M/.pmfs")")
expect_equal "$(stat -c %a "$rundir/ctl")" 600 'mode of the socket'

cat >"$T/client.py" <<'PY'
import json, socket, sys, time

path = sys.argv[1]

def connect():
    s = socket.socket(socket.AF_UNIX)
    s.connect(path)
    s.settimeout(60)
    return s

def ask(data):
    """What comes back for these bytes, as a list of objects, until the reply or the end."""
    s = connect()
    try:
        s.sendall(data)
    except (BrokenPipeError, ConnectionResetError):
        pass
    out, buf = [], b""
    while True:
        try:
            got = s.recv(65536)
        except ConnectionResetError:
            got = b""
        buf += got
        while b"\n" in buf:
            line, buf = buf.split(b"\n", 1)
            out.append(json.loads(line))
            if "ok" in out[-1]:
                return out
        if not got:
            return out

def refused(data, code):
    reply = ask(data)
    assert reply and reply[-1]["ok"] is False, (data[:80], reply)
    assert reply[-1]["error"]["code"] == code, (data[:80], reply)
    assert isinstance(reply[-1]["error"]["exit"], int)

def alive():
    reply = ask(b'{"op":"ping"}\n')
    assert reply[-1]["ok"] is True and reply[-1]["data"]["pid"] > 1, reply

alive()
def alive_again():
    """Once the connections that were just closed have been noticed."""
    for _ in range(6000):
        reply = ask(b'{"op":"ping"}\n')
        if reply[-1]["ok"]:
            return
        assert reply[-1]["error"]["code"] == "busy", reply
        time.sleep(0.01)
    raise AssertionError("busy for ever")

for bad in [b"\n", b"hello\n", b"[]\n", b"1\n", b'"x"\n', b"{\n", b'{"op":1}\n', b"{}\n", b'{"op":"ping","args":[]}\n',
            b'{"op":"ping","op":"ping"}\n', b'{"op":"\xff"}\n', b'{"op":"a\\u0000b"}\n', b"\0\n",
            b'{"op":"ping","args":' + b'{"a":' * 5000 + b"1" + b"}" * 5000 + b"}\n",
            b'{"op":"ping","args":{"a":' + b"[" * 100 + b"]" * 100 + b"}}\n",
            b'{"op":"' + b"x" * 70000 + b'"}\n', b"x" * 1000000]:
    refused(bad, "usage")
    alive()
refused(b'{"op":"nonsense"}\n', "failed")
refused(b'{"op":"snap.create"}\n', "usage")
refused(b'{"op":"snap.create","args":{"name":7}}\n', "usage")
refused(b'{"op":"snap.create","args":{"name":"a/b"}}\n', "usage")
refused(b'{"op":"snap.delete","args":{"names":"x"}}\n', "usage")
refused(b'{"op":"snap.delete","args":{"names":[1]}}\n', "usage")
refused(json.dumps({"op": "snap.delete", "args": {"names": ["x"] * 2000}}).encode() + b"\n", "usage")
refused(b'{"op":"snap.rename","args":{"old":"x"}}\n', "usage")
refused(b'{"op":"snap.show","args":{"name":"nowhere"}}\n', "not-found")
alive()

# Two requests in one piece, and one in pieces.
s = connect()
s.sendall(b'{"op":"ping"}\n{"op":"ping"}\n')
buf = b""
while buf.count(b"\n") < 2:
    buf += s.recv(65536)
assert all(json.loads(line)["ok"] for line in buf.splitlines())
for i in range(0, len(b'{"op":"ping"}\n')):
    s.sendall(b'{"op":"ping"}\n'[i:i + 1])
assert json.loads(s.recv(65536))["ok"]
s.close()

# Many that ask and never read, or never ask; and many that go away at once.
idle = []
for i in range(30):
    s = connect()
    s.sendall(b'{"op":"status"}\n' * 200)
    idle.append(s)
for i in range(20):
    idle.append(connect())
for i in range(50):
    s = connect()
    s.sendall(b'{"op":"status"}\n')
    s.close()
alive_again()
# More than there is room for: turned away with a word, not left hanging.
while len(idle) < 100:
    idle.append(connect())
reply = ask(b'{"op":"ping"}\n')
assert reply[-1]["ok"] is False and reply[-1]["error"]["code"] == "busy", reply
for s in idle:
    s.close()
alive_again()
PY
timeout 120 python3 "$T/client.py" "$rundir/ctl" || fail 'the daemon did not stand it'
expect_ok pmfs-ctl status "$M"

if [ "$(id -u)" = 0 ]; then
	say 'another user may look when allow_other lets him in, and change nothing'
	# As a user that has nothing to do with it.
	as() {
		setpriv --reuid=65534 --regid=65534 --clear-groups "$@"
	}
	mkdir "$T/open"
	chmod 755 "$T"
	expect_fail 9 as "$(command -v pmfs-snap)" list "$M"
	mount_pmfs ram "$T/open" size=64M,allow_other
	pmfs-snap -q create "$T/open" mine
	expect_ok as "$(command -v pmfs-snap)" list "$T/open"
	expect_text mine "$OUT"
	expect_ok as "$(command -v pmfs-ctl)" status "$T/open"
	expect_fail 9 as "$(command -v pmfs-snap)" create "$T/open" his
	expect_fail 9 as "$(command -v pmfs-snap)" delete "$T/open" mine
	expect_fail 9 as "$(command -v pmfs-snap)" rename "$T/open" mine his
	expect_fail 9 as "$(command -v pmfs-ctl)" dedup "$T/open" start
	umount_pmfs "$T/open"
fi

say 'a client that waits does not keep the daemon from ending'
python3 -c 'import socket, sys, time
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
print("there", flush=True)
s.recv(1)' "$rundir/ctl" >"$T/there" &
client=$!
wait_for grep -q there "$T/there"
umount_pmfs "$M"
wait "$client"
