"""Sites from buckets, by Host, on every home's web port."""
import http.client
import socket
import time

import pytest

from conftest import noise, sha

PAGES = {"index.html": ("<h1>home</h1>", "text/html"), "deep/er/index.html": ("<h1>deeper</h1>", "text/html"), "style.css": ("a{}", "text/css"),
         "lost.html": ("<h1>not here</h1>", "text/html"), "ünï cøde.html": ("<h1>named</h1>", "text/html")}
PHOTO = noise(2_500_000, "photo")


@pytest.fixture(scope="module")
def site(cluster):
    s3 = cluster.s3(0)
    s3.create_bucket(Bucket="journal")
    for key, (body, kind) in PAGES.items():
        s3.put_object(Bucket="journal", Key=key, Body=body.encode(), ContentType=kind, CacheControl="max-age=5")
    s3.put_object(Bucket="journal", Key="photo.jpg", Body=PHOTO, ContentType="image/jpeg")
    s3.create_bucket(Bucket="private")
    s3.put_object(Bucket="private", Key="index.html", Body=b"secret")
    cluster.homes[0].ctl("bucket", "website", "journal", "--index", "index.html", "--error", "lost.html")

    def ask(path, home=1, method="GET", host="journal.web.localhost", **headers):
        c = http.client.HTTPConnection(cluster.homes[home].web, timeout=10)
        c.request(method, path, headers={"Host": host} | {k.replace("_", "-"): v for k, v in headers.items()})
        r = c.getresponse()
        r.content = r.read()
        c.close()
        return r

    return ask


def test_pages(site, cluster):
    for home in range(3):
        r = site("/", home)
        assert (r.status, r.content, r.getheader("Content-Type"), r.getheader("Cache-Control")) == (200, b"<h1>home</h1>", "text/html", "max-age=5")
        assert site("/deep/er/", home).content == b"<h1>deeper</h1>"
        assert sha(site("/photo.jpg", home).content) == sha(PHOTO)
    assert site("/%C3%BCn%C3%AF%20c%C3%B8de.html").content == b"<h1>named</h1>"
    assert site("/", host=f"journal.web.localhost:{cluster.homes[1].web.split(':')[1]}").status == 200
    assert site("/", host="JOURNAL.web.localhost").status == 200, "host names have no case"
    assert site("/style.css?v=3").content == b"a{}"


def test_redirect_for_directories(site):
    r = site("/deep/er?x=1")
    assert r.status == 302 and r.getheader("Location") == "/deep/er/?x=1"


def test_errors(site):
    r = site("/nothing/here")
    assert (r.status, r.content) == (404, b"<h1>not here</h1>")
    for host in ("unknown.web.localhost", "private.web.localhost", "localhost", "a.b.c.d"):
        r = site("/", host=host)
        assert r.status == 404 and b"no site of this name" in r.content and b"secret" not in r.content, host
    r = site("/", method="POST")
    assert r.status == 405 and "GET" in r.getheader("Allow")
    assert site("/%zz").status == 400


def test_conditions_and_ranges(site):
    first = site("/photo.jpg", method="HEAD")
    assert first.status == 200 and int(first.getheader("Content-Length")) == len(PHOTO) and first.content == b""
    etag, changed = first.getheader("ETag"), first.getheader("Last-Modified")
    r = site("/photo.jpg", If_None_Match=etag)
    assert r.status == 304 and r.content == b"" and r.getheader("ETag") == etag
    assert site("/photo.jpg", If_Modified_Since=changed).status == 304
    assert site("/photo.jpg", If_None_Match='"other"').status == 200
    r = site("/photo.jpg", Range="bytes=1048000-1049000")
    assert r.status == 206 and r.content == PHOTO[1048000:1049001] and r.getheader("Content-Range") == f"bytes 1048000-1049000/{len(PHOTO)}"
    assert site("/photo.jpg", Range=f"bytes={len(PHOTO)}-").status == 416
    # What goes on must be of the version that was begun.
    for same in (etag, changed):
        assert site("/photo.jpg", Range="bytes=5-9", If_Range=same).status == 206
    for other in ('"other"', "Sun, 06 Nov 1994 08:49:37 GMT", "W/" + etag):
        r = site("/photo.jpg", Range="bytes=5-9", If_Range=other)
        assert r.status == 200 and sha(r.content) == sha(PHOTO), other


def test_taken_off_line(site, cluster):
    cluster.homes[2].ctl("bucket", "website", "journal", "--off")
    try:
        assert all(site("/", home).status == 404 for home in range(3))
    finally:
        cluster.homes[2].ctl("bucket", "website", "journal", "--index", "index.html", "--error", "lost.html")


def test_visitors_who_read_nothing(site, cluster):
    """However many ask for what is large and take none of it: those who upload, and those who read what is small, do not notice."""
    s3 = cluster.s3(1)
    s3.put_object(Bucket="journal", Key="film.mp4", Body=noise(20 << 20, "film"))
    host, port = cluster.homes[1].web.rsplit(":", 1)
    idle = []
    try:
        for _ in range(60):
            c = socket.create_connection((host, int(port)), timeout=10)
            c.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            c.sendall(b"GET /film.mp4 HTTP/1.1\r\nHost: journal.web.localhost\r\n\r\n")
            idle.append(c)
        time.sleep(2)
        began = time.monotonic()
        s3.put_object(Bucket="journal", Key="new.bin", Body=noise(5_000_000, "new"))
        assert sha(s3.get_object(Bucket="journal", Key="new.bin")["Body"].read()) == sha(noise(5_000_000, "new"))
        assert site("/").status == 200
        assert time.monotonic() - began < 15
    finally:
        for c in idle:
            c.close()


def test_unfinished_headers_take_little_memory(site, cluster):
    def resident(pid):
        return next(int(line.split()[1]) for line in open(f"/proc/{pid}/status") if line.startswith("VmRSS")) << 10

    home = cluster.homes[1]
    host, port = home.web.rsplit(":", 1)
    before, waiting = resident(home.process.pid), []
    try:
        for _ in range(600):
            c = socket.create_connection((host, int(port)), timeout=10)
            waiting.append(c)
            try:
                c.sendall(b"GET / HTTP/1.1\r\nHost: journal.web.localhost\r\nX: " + b"x" * 30_000)
            except OSError:
                pass  # refused: there are too many
        time.sleep(1)
        assert resident(home.process.pid) - before < 60 << 20
        assert site("/", 0).status == 200
    finally:
        for c in waiting:
            c.close()
    time.sleep(1)
    assert site("/").status == 200
