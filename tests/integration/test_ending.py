"""SIGTERM ends a home within five seconds whatever is under way, with status 0, and a home that is started again serves again."""
import threading
import time

import botocore.exceptions
import pytest

from conftest import noise, sha


class Load:
    """Threads that put large and small objects through one home until they are told to end; errors are what a stop brings."""

    def __init__(self, cluster, bucket, home, threads=4):
        self.ending, self.acknowledged = threading.Event(), {}
        self.threads = [threading.Thread(target=self.run, args=(cluster, bucket, home, i), daemon=True) for i in range(threads)]

    def run(self, cluster, bucket, home, thread):
        s3, n = cluster.s3(home, timeout=20), 0
        while not self.ending.is_set():
            data = noise(3_000_000 if n % 2 else 20_000, (thread, n))
            try:
                s3.put_object(Bucket=bucket, Key=f"h{home}-t{thread}-{n}", Body=data)
                self.acknowledged[f"h{home}-t{thread}-{n}"] = sha(data)
            except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError, OSError):
                time.sleep(0.05)
            n += 1

    def __enter__(self):
        for t in self.threads:
            t.start()
        return self

    def __exit__(self, *_):
        self.ending.set()
        for t in self.threads:
            t.join(60)
            assert not t.is_alive(), "an upload hangs"


def ends(home):
    start = time.monotonic()
    home.process.terminate()
    code = home.process.wait(15)
    took = time.monotonic() - start
    print(f"{home.zone} ended with {code} after {took:.2f} s")
    assert code == 0 and took < 5.0, f"{code} after {took:.2f} s\n{home.tail(10)}"


@pytest.fixture(scope="module")
def bucket(cluster):
    cluster.s3(0).create_bucket(Bucket="ending")
    return "ending"


def whole(cluster, bucket, sums):
    cluster.wait_whole()
    for i, (key, s) in enumerate(sums.items()):
        assert sha(cluster.s3(i % 3).get_object(Bucket=bucket, Key=key)["Body"].read()) == s, key


def test_at_rest(cluster, bucket):
    for home in cluster.homes:
        ends(home)
        home.start()
        cluster.wait_whole()


def test_while_uploads_run(cluster, bucket):
    for i, home in enumerate(cluster.homes):
        with Load(cluster, bucket, i) as load:
            time.sleep(1.5)
            ends(home)
            home.start()
            time.sleep(1)
        assert load.acknowledged
        whole(cluster, bucket, load.acknowledged)


@pytest.mark.parametrize("how", ["dark", "frozen"])
@pytest.mark.parametrize("peers", [1, 2])
def test_while_peers_are_away(cluster, bucket, how, peers):
    home, others = cluster.homes[0], cluster.homes[1:1 + peers]
    with Load(cluster, bucket, 0) as load:
        time.sleep(1)
        for h in others:
            h.kill() if how == "dark" else h.freeze()
        try:
            time.sleep(0.7)  # not known to be away yet, or only just
            ends(home)
        finally:
            for h in others:
                h.start(wait=False) if how == "dark" else h.thaw()
        home.start()
    whole(cluster, bucket, load.acknowledged)


def test_a_home_without_peers_starts_and_ends(cluster, bucket):
    """All stop; the first alone starts, answers what it can, and ends; then all are back."""
    for home in cluster.homes:
        ends(home)
    cluster.homes[0].start(wait=False)
    time.sleep(2)
    assert cluster.homes[0].alive()
    ends(cluster.homes[0])
    for home in cluster.homes:
        home.start(wait=False)
    for home in cluster.homes:
        home.wait_ready()
    cluster.wait_whole()
    cluster.s3(1).put_object(Bucket=bucket, Key="back", Body=b"back")
    assert cluster.s3(2).get_object(Bucket=bucket, Key="back")["Body"].read() == b"back"
