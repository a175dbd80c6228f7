"""Memory of a home: at rest, and while one large object streams through it. Prints its numbers (pytest -s, or in a failure)."""
import hashlib
import os

import pytest

MiB = 1 << 20
SIZE = (2048 if os.environ.get("GRENIER_LONG") else 512) * MiB
PIECE = os.urandom(MiB)


class Pieces:
    """A body of SIZE bytes that is never in memory at once; every MiB differs. Keeps its sha256 as it is read from the start."""

    def __init__(self):
        self.at, self.sum = 0, hashlib.sha256()

    def __len__(self):
        return SIZE

    def read(self, n=-1):
        if self.at >= SIZE:
            return b""
        start = self.at
        n = min(MiB - start % MiB, SIZE - start, n if n and n > 0 else MiB)
        self.at += n
        piece = start // MiB
        data = (piece.to_bytes(8, "big") + PIECE[8:])[start % MiB:start % MiB + n]
        self.sum.update(data)
        return data

    def tell(self):
        return self.at

    def seek(self, to, whence=0):
        self.at = to if whence == 0 else SIZE + to if whence == 2 else self.at + to
        if self.at == 0:
            self.sum = hashlib.sha256()
        return self.at


def report(cluster, when):
    for home in cluster.homes:
        print(f"{when}: {home.zone} {home.rss() / MiB:.1f} MiB resident, {home.rss(peak=True) / MiB:.1f} MiB at most so far")


def test_idle(cluster):
    report(cluster, "idle")
    assert max(home.rss() for home in cluster.homes) < 64 * MiB


@pytest.mark.timeout(1200)
def test_large_put_and_get(cluster):
    s3 = cluster.s3(0, timeout=300, signature_version="s3v4")
    s3.create_bucket(Bucket="large")
    body = Pieces()
    s3.meta.events.register("before-sign.s3.PutObject", lambda request, **_: request.headers.__delitem__("Content-MD5"))
    s3.meta.events.register("before-sign.s3.PutObject", lambda request, **_: request.context.__setitem__("payload_signing_enabled", False))
    s3.put_object(Bucket="large", Key="one", Body=body)
    report(cluster, f"after a PUT of {SIZE // MiB} MiB")
    assert max(home.rss(peak=True) for home in cluster.homes) < 128 * MiB
    got = hashlib.sha256()
    for piece in cluster.s3(1, timeout=300).get_object(Bucket="large", Key="one")["Body"].iter_chunks(MiB):
        got.update(piece)
    assert got.hexdigest() == body.sum.hexdigest()
    report(cluster, f"after a GET of {SIZE // MiB} MiB")
    assert max(home.rss(peak=True) for home in cluster.homes) < 128 * MiB
