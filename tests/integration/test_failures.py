"""Homes that die, freeze and lose files, while clients go on. Nothing acknowledged is ever lost; every object is compared by sha256."""
import concurrent.futures
import os
import random
import threading
import time
import urllib.error
import urllib.request

import botocore.exceptions
import pytest

from conftest import noise, sha, until

KILLS = int(os.environ.get("GRENIER_KILLS", "3"))


class Uploads:
    """Threads that put objects through the homes given, and remember what was acknowledged. An object is retried at the next home
    when its own is not there, as a client with two addresses does."""

    def __init__(self, cluster, bucket, homes=(0, 1, 2), threads=4, pause=0.0):
        self.cluster, self.bucket, self.homes, self.pause = cluster, bucket, homes, pause
        self.acknowledged, self.slowest, self.errors = {}, 0.0, []
        self.ending = threading.Event()
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.run, args=(i,), daemon=True) for i in range(threads)]

    def __enter__(self):
        for t in self.threads:
            t.start()
        return self

    def __exit__(self, *_):
        self.ending.set()
        for t in self.threads:
            t.join(90)
            assert not t.is_alive(), "an upload hangs"

    def run(self, thread):
        clients = [self.cluster.s3(h, timeout=30) for h in self.homes]
        rng, n = random.Random(thread), 0
        while not self.ending.is_set():
            key = f"t{thread}-{n:05}"
            data = noise(rng.choice([0, 900, 5_000, 70_000, 1_300_000]), (thread, n))
            for attempt in range(20):
                client = clients[(thread + attempt) % len(clients)]
                start = time.monotonic()
                try:
                    client.put_object(Bucket=self.bucket, Key=key, Body=data)
                    took = time.monotonic() - start
                    got = client.get_object(Bucket=self.bucket, Key=key)["Body"].read() if n % 3 == 0 else data
                    with self.lock:
                        self.acknowledged[key] = sha(data)
                        self.slowest = max(self.slowest, took)
                        if got != data:
                            self.errors.append(f"{key} reads back differently")
                    break
                except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError, botocore.exceptions.HTTPClientError, OSError) as e:
                    with self.lock:
                        self.errors.append(f"{key}: {e!r}")
                    time.sleep(0.05)
            n += 1
            time.sleep(self.pause)


def verify(cluster, bucket, sums, home):
    s3 = cluster.s3(home)

    def one(key):
        return key if sha(s3.get_object(Bucket=bucket, Key=key)["Body"].read()) != sums[key] else None

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        bad = [k for k in pool.map(one, sums) if k]
    assert not bad, f"{len(bad)} of {len(sums)} objects differ at home {home}: {bad[:5]}"
    listed = {o["Key"] for p in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket) for o in p.get("Contents", [])}
    assert set(sums) <= listed, f"not listed: {sorted(set(sums) - listed)[:5]}"


def make(cluster, name):
    cluster.s3(0).create_bucket(Bucket=name)
    return name


def test_one_home_is_killed_and_returns(cluster):
    bucket = make(cluster, "killed")
    with Uploads(cluster, bucket, homes=(0, 1)) as up:
        time.sleep(2)
        before = len(up.acknowledged)
        cluster.homes[2].kill()
        time.sleep(5)
        dark = len(up.acknowledged)
        verify(cluster, bucket, dict(up.acknowledged), 0)
        cluster.homes[2].start()
        time.sleep(2)
    print(f"{before} objects before, {dark - before} with one home dark, {len(up.acknowledged) - dark} after; slowest put {up.slowest:.2f} s")
    assert before and dark > before and not up.errors, up.errors[:3]
    cluster.wait_whole()
    cluster.wait_quiet()
    # What came while it was dark is complete at the one that returned: it serves all of it alone but for reads' quorum.
    verify(cluster, bucket, up.acknowledged, 2)
    # Empty queues mean that nothing is missing.
    names = [{p.name for p in h.blocks()} for h in cluster.homes]
    start = time.monotonic()
    until("the home that was dark holds every block file", lambda: {p.name for p in cluster.homes[2].blocks()} >= (names[0] & names[1]), 5)
    print(f"{len(names[0] & names[1])} blocks, all at the home that was dark {time.monotonic() - start:.1f} s after the queues were empty")


def test_one_home_is_frozen(cluster):
    """No request above one second, no error, while one of three homes does not answer and nobody told the others."""
    bucket = make(cluster, "frozen")
    with Uploads(cluster, bucket, homes=(0, 1), threads=2, pause=0.01) as up:
        time.sleep(1.5)
        cluster.homes[2].freeze()
        try:
            time.sleep(6)
        finally:
            cluster.homes[2].thaw()
        time.sleep(1)
    print(f"{len(up.acknowledged)} objects, slowest put {up.slowest:.3f} s")
    assert not up.errors, up.errors[:3]
    assert up.slowest < 1.0
    verify(cluster, bucket, up.acknowledged, 1)
    cluster.wait_whole()
    cluster.wait_quiet()
    verify(cluster, bucket, up.acknowledged, 2)


@pytest.mark.timeout(3600)
def test_kill_in_turn(cluster):
    """kill -9 of each home in turn during uploads; each comes back before the next one goes."""
    bucket = make(cluster, "in-turn")
    with Uploads(cluster, bucket) as up:
        for i in range(KILLS):
            home = cluster.homes[i % 3]
            time.sleep(1)
            home.kill()
            time.sleep(0.7)
            home.start()
            cluster.wait_whole()
    print(f"{KILLS} kills, {len(up.acknowledged)} objects acknowledged, {len(up.errors)} requests failed and were repeated elsewhere")
    assert len(up.acknowledged) > 5 * KILLS
    assert not [e for e in up.errors if "differently" in e]
    cluster.wait_quiet()
    for home in range(3):
        verify(cluster, bucket, up.acknowledged, home)


def test_damaged_and_lost_files(cluster):
    bucket = make(cluster, "damaged")
    data = {f"o{i}": noise(400_000, ("damage", i)) for i in range(12)}
    before = {p for h in cluster.homes for p in h.blocks()}
    for key, body in data.items():
        cluster.s3(0).put_object(Bucket=bucket, Key=key, Body=body)
    home = cluster.homes[1]
    until("the third copies are there", lambda: len(set(home.blocks()) - before) >= 12, 15)
    files = sorted(set(home.blocks()) - before)
    wanted = {p: p.read_bytes() for p in files}
    for n, path in enumerate(files):
        if n % 2:
            path.unlink()
        else:
            broken = bytearray(wanted[path])
            broken[len(broken) // 2] ^= 1
            path.write_bytes(bytes(broken))
    home.restart()  # without what it holds in memory
    for _ in range(2):
        for key, body in data.items():
            assert sha(cluster.s3(1).get_object(Bucket=bucket, Key=key)["Body"].read()) == sha(body)
    home.ctl("repair")
    until("every file is whole again", lambda: all(p.exists() and p.read_bytes() == b for p, b in wanted.items()), 60)
    verify(cluster, bucket, {k: sha(b) for k, b in data.items()}, 1)


def test_two_homes_dark(cluster):
    """Without a majority writes are refused, soon and in words, and reads say that they may be stale; all goes on when one home is back."""
    bucket = make(cluster, "two-dark")
    large = noise(3_000_000, "large")
    cluster.s3(0).put_object(Bucket=bucket, Key="before", Body=b"before")
    cluster.s3(0).put_object(Bucket=bucket, Key="large", Body=large)
    cluster.s3(0).put_object(Bucket=bucket, Key="index.html", Body=b"the site")
    cluster.homes[0].ctl("bucket", "website", bucket, "--index", "index.html")
    assert "x-grenier-possibly-stale" not in cluster.s3(0).get_object(Bucket=bucket, Key="before")["ResponseMetadata"]["HTTPHeaders"]
    cluster.wait_whole()
    s3 = cluster.s3(0, timeout=30)
    cluster.homes[1].kill()
    cluster.homes[2].kill()
    try:
        until("both are known to be down", lambda: sum(n["up"] for n in cluster.homes[0].status()["nodes"]) == 1, 10)
        for body in (b"small", noise(2_000_000, "two")):
            start = time.monotonic()
            with pytest.raises(botocore.exceptions.ClientError) as e:
                s3.put_object(Bucket=bucket, Key="dark", Body=body)
            took, answer = time.monotonic() - start, e.value.response["ResponseMetadata"]
            print(f"refused after {took:.2f} s")
            assert answer["HTTPStatusCode"] == 503 and answer["HTTPHeaders"].get("retry-after"), answer
            assert took < 5
        time.sleep(4)  # from then on it is known, and nobody waits for it
        for call, check in (
            (lambda: s3.get_object(Bucket=bucket, Key="before"), lambda r: r["Body"].read() == b"before"),
            (lambda: s3.get_object(Bucket=bucket, Key="large"), lambda r: r["Body"].read() == large),
            (lambda: s3.head_object(Bucket=bucket, Key="large"), lambda r: r["ContentLength"] == len(large)),
            (lambda: s3.list_objects_v2(Bucket=bucket), lambda r: [o["Key"] for o in r["Contents"]] == ["before", "index.html", "large"]),
        ):
            start = time.monotonic()
            answer = call()
            assert check(answer)
            headers = answer["ResponseMetadata"]["HTTPHeaders"]
            assert headers["x-grenier-possibly-stale"] == "true" and headers["warning"].startswith("110"), headers
            assert time.monotonic() - start < 1
        site = urllib.request.Request(f"http://{cluster.homes[0].web}/", headers={"Host": f"{bucket}.web.localhost"})
        assert urllib.request.urlopen(site, timeout=5).read() == b"the site"
        with pytest.raises(botocore.exceptions.ClientError) as e:
            s3.get_object(Bucket=bucket, Key="never")  # the others may have it
        assert e.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
        assert "may be old" in cluster.homes[0].status()["say"]
        assert urllib.request.urlopen(f"http://{cluster.homes[0].admin}/health", timeout=2).status == 200
    finally:
        cluster.homes[1].start()
        cluster.homes[2].start()
    cluster.wait_whole()
    s3.put_object(Bucket=bucket, Key="after", Body=b"after")
    assert cluster.s3(2).get_object(Bucket=bucket, Key="before")["Body"].read() == b"before"
    assert cluster.s3(1).get_object(Bucket=bucket, Key="after")["Body"].read() == b"after"


def test_clean_end(cluster):
    for home in cluster.homes:
        start = time.monotonic()
        assert home.stop() == 0 and time.monotonic() - start < 5.5
        home.start()
        cluster.wait_whole()
