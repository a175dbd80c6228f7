"""Who does not belong, and clocks that are wrong: a node with a forged key, noise on the ports, homes and clients hours off."""
import json
import datetime
import os
import socket
import subprocess

import pytest

from conftest import STORAGECTL, TOOL_PATH, Cluster, noise, sha, until
from rows import set_row
from test_clients import signed

FAKETIME = next((p for p in ("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1", "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1") if os.path.exists(p)), None)

TIMERS = """
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>
int timerfd_settime(int fd, int flags, const struct itimerspec* now, struct itimerspec* before) {
  return (int)syscall(SYS_timerfd_settime, fd, flags, now, before);
}
"""


def words(home, *args):
    return subprocess.run([STORAGECTL, "--data-dir", str(home.dir), *args], capture_output=True, text=True, check=False, env={"PATH": TOOL_PATH}).stdout


def test_forged_cluster_key(tmp_path):
    c = Cluster(tmp_path, zones=("home-lyon", "home-paris"))
    try:
        c.start()
        s3 = c.s3(0)
        s3.create_bucket(Bucket="kept")
        s3.put_object(Bucket="kept", Key="k", Body=noise(200_000, "kept"))
        lyon, paris = c.homes
        paris.kill()
        set_row(paris.dir, b"cluster/keyring", lambda v: json.dumps({**json.loads(v), "keys": ["7" * 64]}, separators=(",", ":")).encode())
        paris.start()
        until("it is refused", lambda: lyon.status().get("refused_handshakes", {}).get("count", 0) >= 2, 20)
        # Who dials first is not said: each of the two refusals comes in its own time.
        until("both ways are refused and told", lambda: all(w in lyon.log.read_text() for w in ("another cluster key", "does not know the cluster key")), 40)
        until("it counts as dark", lambda: "DARK" in words(lyon, "status"), 10)
        assert "Refused" in words(lyon, "status") and "another cluster's key" in words(lyon, "status")
        assert sum(n["up"] for n in lyon.status()["nodes"]) == 1 == sum(n["up"] for n in paris.status()["nodes"])
        assert sha(s3.get_object(Bucket="kept", Key="k")["Body"].read()) == sha(noise(200_000, "kept"))
        s3.put_object(Bucket="kept", Key="later", Body=b"later")
    finally:
        c.stop()


def test_noise_on_every_port(cluster):
    home = cluster.homes[0]
    held = []
    for address in (home.rpc, home.s3, home.web, home.admin):
        for body in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 300, noise(5000, "noise"), b"grw1" + noise(500, "hello"), b"PUT /x HTTP/1.1\r\nContent-Length: 999999999999\r\n\r\nx",
                     b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"):
            host, port = address.split(":")
            s = socket.create_connection((host, int(port)), timeout=5)
            try:
                s.sendall(body)
            except OSError:
                pass
            held.append(s)
    assert home.alive() and home.status()["zones_up"] == 3
    s3 = cluster.s3(0)
    s3.create_bucket(Bucket="noise")
    s3.put_object(Bucket="noise", Key="k", Body=b"through all of it")
    assert cluster.s3(1).get_object(Bucket="noise", Key="k")["Body"].read() == b"through all of it"
    for s in held:
        s.close()


def curl(cluster, home, method, path, hours=0, body=b""):
    """(status, body) of a request by a client whose clock is that many hours off."""
    at = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=hours)
    args = ["/usr/bin/curl", "-sS", "-m", "20", "-X", method, "-w", "\n%{http_code}", *signed(cluster, method, home.s3, path, body, at=at), home.url + path]
    if body:
        args += ["--data-binary", "@-", "-H", "Content-Type:"]
    out = subprocess.run(args, input=body, capture_output=True, check=False).stdout.decode()
    text, _, code = out.rpartition("\n")
    return int(code), text


@pytest.mark.parametrize("hours", [3, -3])
def test_a_home_hours_off(cluster, hours, tmp_path):
    """The wrong home is named, takes no part in writing, harms nothing, and catches up when its clock is right."""
    if not FAKETIME:
        pytest.skip("libfaketime is not installed (package faketime)")
    # libfaketime shifts the timers of CLOCK_MONOTONIC as well, whatever it is told: one that is due at once would never come.
    timers = tmp_path / "timers.so"
    (tmp_path / "timers.c").write_text(TIMERS)
    subprocess.run(["clang-19", "-shared", "-fPIC", "-O1", "-o", timers, tmp_path / "timers.c"], check=True)
    bucket = f"hours{hours}"
    s3, wrong = cluster.s3(0), cluster.homes[2]
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="old", Body=b"before")
    cluster.wait_quiet()
    wrong.stop()
    wrong.env = {"LD_PRELOAD": f"{timers} {FAKETIME}", "FAKETIME": f"{hours:+}h", "FAKETIME_DONT_FAKE_MONOTONIC": "1", "FAKETIME_DONT_RESET": "1"}
    try:
        wrong.start()
        # Through the wrong home, with a clock as wrong: refused in words, or taken for good.
        for key in ("new", "old"):
            code, text = curl(cluster, wrong, "PUT", f"/{bucket}/{key}", hours, b"by a wrong clock")
            assert code == 503 and "clock" in text or code == 200 and hours < 0, (code, text)
        code, text = curl(cluster, wrong, "GET", f"/{bucket}/old", 0)
        assert code == 403 and "RequestTimeTooSkewed" in text
        # Through the others: as ever, also for what the wrong one tried to write.
        for key in ("new", "old"):
            for home in cluster.homes[:2]:
                code, text = curl(cluster, home, "GET", f"/{bucket}/{key}")
                assert code in (200, 404), (key, code, text)
            s3.put_object(Bucket=bucket, Key=key, Body=b"after")
            assert cluster.s3(1).get_object(Bucket=bucket, Key=key)["Body"].read() == b"after"
        for i in range(10):
            s3.put_object(Bucket=bucket, Key=f"n{i}", Body=noise(300_000, (hours, i)))

        def named():
            mine, its = cluster.homes[0].status(), wrong.status()
            off = next(n.get("clock_off_s", 0) for n in mine["nodes"] if n["zone"] == wrong.zone)
            return mine["health"] == its["health"] == "clocks differ" and abs(off - hours * 3600) < 60 and "This home's clock is wrong" in its["say"]

        until("status names the wrong clock", named, 60)
        assert f"The clock of {wrong.zone} is" in words(cluster.homes[0], "status")
        assert "timedatectl" in cluster.homes[0].log.read_text()
    finally:
        wrong.env = {}
        wrong.restart()
    cluster.wait_whole()
    for home in range(3):
        c = cluster.s3(home)
        for key in ("new", "old"):
            assert c.get_object(Bucket=bucket, Key=key)["Body"].read() == b"after"
    until("nobody's clock is named any more", lambda: all(h.status()["health"] == "healthy" for h in cluster.homes), 60)
    cluster.wait_quiet(90)
    for i in range(10):
        assert sha(cluster.s3(2).get_object(Bucket=bucket, Key=f"n{i}")["Body"].read()) == sha(noise(300_000, (hours, i)))
