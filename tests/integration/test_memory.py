"""Memory of a home: at rest, and while one large object streams through it. Prints its numbers (pytest -s, or in a failure)."""
import concurrent.futures
import hashlib
import os

import pytest

MiB = 1 << 20
SIZE = (2048 if os.environ.get("GRENIER_LONG") else 256) * MiB
PARALLEL, EACH = 16, (64 if os.environ.get("GRENIER_LONG") else 24) * MiB
PIECE = os.urandom(MiB)


class Pieces:
    """A body that is never in memory at once; every MiB of every body differs. Keeps its sha256 as it is read from the start."""

    def __init__(self, size, number=0):
        self.size, self.number, self.at, self.sum = size, number << 32, 0, hashlib.sha256()

    def __len__(self):
        return self.size

    def read(self, n=-1):
        if self.at >= self.size:
            return b""
        start = self.at
        n = min(MiB - start % MiB, self.size - start, n if n and n > 0 else MiB)
        self.at += n
        piece = self.number + start // MiB
        data = (piece.to_bytes(8, "big") + PIECE[8:])[start % MiB:start % MiB + n]
        self.sum.update(data)
        return data

    def tell(self):
        return self.at

    def seek(self, to, whence=0):
        self.at = to if whence == 0 else self.size + to if whence == 2 else self.at + to
        if self.at == 0:
            self.sum = hashlib.sha256()
        return self.at


def report(cluster, when):
    for home in cluster.homes:
        print(f"{when}: {home.zone} {home.rss() / MiB:.1f} MiB resident, {home.rss(peak=True) / MiB:.1f} MiB at most so far")


def test_idle(cluster):
    report(cluster, "idle")
    assert max(home.rss() for home in cluster.homes) < 64 * MiB


def streaming(cluster, home):
    """A client that neither hashes nor holds what it sends."""
    s3 = cluster.s3(home, timeout=600, signature_version="s3v4")
    s3.meta.events.register("before-sign.s3.PutObject", lambda request, **_: request.headers.__delitem__("Content-MD5"))
    s3.meta.events.register("before-sign.s3.PutObject", lambda request, **_: request.context.__setitem__("payload_signing_enabled", False))
    return s3


@pytest.mark.timeout(1800)
def test_sixteen_uploads_at_once(cluster):
    """16 bodies at the same time through one home: of 64 MiB with GRENIER_LONG."""
    s3 = streaming(cluster, 0)
    s3.create_bucket(Bucket="many")
    parts = [Pieces(EACH, i) for i in range(PARALLEL)]
    with concurrent.futures.ThreadPoolExecutor(PARALLEL) as pool:
        list(pool.map(lambda i: s3.put_object(Bucket="many", Key=f"k{i}", Body=parts[i]), range(PARALLEL)))
    report(cluster, f"after {PARALLEL} uploads of {EACH // MiB} MiB at once through {cluster.homes[0].zone}")
    for i in range(PARALLEL):
        got = hashlib.sha256()
        for piece in cluster.s3(i % 3, timeout=300).get_object(Bucket="many", Key=f"k{i}")["Body"].iter_chunks(MiB):
            got.update(piece)
        assert got.hexdigest() == parts[i].sum.hexdigest()
    assert max(home.rss(peak=True) for home in cluster.homes) < 192 * MiB, "the budget of --memory"


@pytest.mark.timeout(1800)
def test_large_put_and_get(cluster):
    for home in cluster.homes:
        home.restart()  # the peak is of this test alone
    cluster.wait_whole()
    s3 = streaming(cluster, 0)
    s3.create_bucket(Bucket="large")
    body = Pieces(SIZE)
    s3.put_object(Bucket="large", Key="one", Body=body)
    report(cluster, f"after a PUT of {SIZE // MiB} MiB")
    assert max(home.rss(peak=True) for home in cluster.homes) < 128 * MiB
    got = hashlib.sha256()
    for piece in cluster.s3(1, timeout=300).get_object(Bucket="large", Key="one")["Body"].iter_chunks(MiB):
        got.update(piece)
    assert got.hexdigest() == body.sum.hexdigest()
    report(cluster, f"after a GET of {SIZE // MiB} MiB")
    assert max(home.rss(peak=True) for home in cluster.homes) < 128 * MiB
