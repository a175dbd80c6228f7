"""The picture decoder and its pool with real photos and hostile files, fetched from Debian's source packages.

Driven by server/picture/picture_try, which is the pool behind a command line: if the pool's process ends, its summary is missing."""
import json
import os
import pathlib
import signal
import subprocess
import tarfile
import time

import pytest
import requests

from conftest import BIN, ROOT, TOOL_PATH, Cluster, sha, until

PARTS = next((p for p in (BIN.resolve().parent / "server/picture", ROOT / "build/server/picture") if p.is_dir()), ROOT / "build/server/picture")
TRY = str(PARTS / "picture_try")
CACHE = ROOT / "build/demo-cache/pictures"
PACKAGES = ("exiv2", "vips", "libheif", "golang-github-rwcarlsen-goexif", "libimage-exiftool-perl")
ENV = {**os.environ, "PATH": TOOL_PATH, "LC_ALL": "C.UTF-8"}
CORPUS = ("test/data", "test-suite/images", "fuzz", "/samples", "t/images", "exif2/", "exif/")


def apt(folder, *words):
    own = folder / "apt"
    (own / "lists/partial").mkdir(parents=True, exist_ok=True)
    (own / "archives/partial").mkdir(parents=True, exist_ok=True)
    (own / "sources.list").write_text("deb-src http://deb.debian.org/debian bookworm main\n")
    options = {"Dir::Etc::sourcelist": own / "sources.list", "Dir::Etc::sourceparts": "-", "Dir::State::lists": own / "lists",
               "Dir::Cache::archives": own / "archives", "Dir::Cache::pkgcache": "", "Dir::Cache::srcpkgcache": "", "APT::Sandbox::User": "root"}
    flat = [w for k, v in options.items() for w in ("-o", f"{k}={v}")]
    subprocess.run(["apt-get", "-qq", *flat, *words], cwd=folder, env=ENV, check=True, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def sources():
    """The packages' files, unpacked once."""
    CACHE.mkdir(parents=True, exist_ok=True)
    if not (CACHE / "done").exists():
        apt(CACHE, "update")
        apt(CACHE, "source", "--download-only", *PACKAGES)
        for archive in sorted(CACHE.glob("*.orig.tar.*")):
            with tarfile.open(archive) as t:
                t.extractall(CACHE, [m for m in t.getmembers() if m.isfile() and ".." not in m.name and not m.name.startswith("/")])
            archive.unlink()
        (CACHE / "done").touch()
    return CACHE


def find(sources, name):
    return str(next(p for p in sources.rglob(name) if p.is_file()))


def show(*words, timeout=300):
    """What the pool says of each file, and its summary."""
    run = subprocess.run([TRY, *map(str, words)], env=ENV, capture_output=True, text=True, timeout=timeout)
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    assert lines and "summary" in lines[-1], f"the pool's process ended: {run.returncode} {run.stderr[-500:]}"
    return lines[:-1], lines[-1]


def pixels(jpeg):
    """Width, height and bytes of a JPEG, as libjpeg's own program decodes it."""
    ppm = subprocess.run(["djpeg", "-rgb", "-ppm", str(jpeg)], env=ENV, check=True, capture_output=True).stdout
    kind, width, height, _ = ppm.split(maxsplit=4)[:4]
    assert kind == b"P6"
    return int(width), int(height), ppm[-int(width) * int(height) * 3:]


def difference(a, b):
    assert a[:2] == b[:2]
    return sum(abs(x - y) for x, y in zip(a[2], b[2])) / len(a[2])


def test_hostile_and_odd_files_cost_only_themselves(sources, tmp_path):
    files = sorted(str(p) for p in sources.rglob("*") if p.is_file() and any(part in str(p) for part in CORPUS))
    assert len(files) > 390
    good = find(sources, "2021-02-13-1929.heic")
    mixed = [f for at, f in enumerate(files) for f in ([f, good] if at % 100 == 99 else [f])]
    said, summary = show("--together", 3, "--children", 2, "--sizes", "320,640", "--out", tmp_path, *mixed)
    print(summary)
    assert len(said) == len(mixed)
    assert summary["errors"] == 0
    assert all(line["verdict"] == "picture" for line in said if line["file"] == good)
    assert all(line["reason"] for line in said if line["verdict"] == "undecodable")
    assert summary["pictures"] > 200
    assert not [line for line in said if "may not do" in line.get("reason", "")], "a codec needs more than the sandbox allows"
    nothing_but_pixels(tmp_path)


def test_hostile_files_in_a_bucket_with_a_gallery_leave_the_home_and_other_photos_alone(sources, tmp_path):
    corpus = sorted(p for p in sources.rglob("*") if p.is_file() and any(part in str(p) for part in CORPUS))
    files = [corpus[i * len(corpus) // 390] for i in range(390)]
    good = pathlib.Path(find(sources, "2021-02-13-1929.heic")).read_bytes()
    cluster = Cluster(tmp_path / "homes", ["home-lyon"])
    (tmp_path / "homes").mkdir()
    home = cluster.homes[0]
    try:
        cluster.start()
        s3 = cluster.s3(0)
        s3.create_bucket(Bucket="photos")
        home.ctl("gallery", "create", "photos")
        own = []
        for i, file in enumerate(files):
            s3.put_object(Bucket="photos", Key=f"{i:03}/{file.name}", Body=file.read_bytes())
            if i % 40 == 39:
                own.append(good + b"\0" * i)
                s3.put_object(Bucket="photos", Key=f"mine/{i}.heic", Body=own[-1])

        def all_seen():
            s = home.ctl("gallery", "status", "photos")
            assert not s["waiting"] and not s["completing"] and not s["looking"] and s["photos"] >= len(own), s
            return s

        status = until("every file was looked at", all_seen, 300, 1)
        print({k: status.get(k) for k in ("photos", "failed", "rendered_here", "last_error")})
        assert home.alive() and requests.get(f"http://{home.admin}/health", timeout=10).status_code == 200, "one process from the first file to the last"
        site = {"Host": "photos-gallery.web.localhost"}
        for body in own:
            for what in (f"p/{sha(body)}/", f"t/{sha(body)}/320.webp", f"t/{sha(body)}/2048.jpg"):
                assert requests.get(f"http://{home.web}/{what}", headers=site, timeout=30).status_code == 200, what
        assert all(f["reason"] for f in home.ctl("gallery", "failures", "photos")["failures"])
        pictures = tmp_path / "t"
        pictures.mkdir()
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket="photos-gallery", Prefix="t/"):
            for o in page.get("Contents", []):
                (pictures / o["Key"].replace("/", "_")).write_bytes(s3.get_object(Bucket="photos-gallery", Key=o["Key"])["Body"].read())
        print(len(list(pictures.iterdir())), "small pictures")
        nothing_but_pixels(pictures)
        for i, file in list(enumerate(files))[::13]:  # what was uploaded is as it was
            assert s3.get_object(Bucket="photos", Key=f"{i:03}/{file.name}")["Body"].read() == file.read_bytes()
    finally:
        cluster.stop()


def nothing_but_pixels(folder):
    """exiftool finds what every such file has, and nothing else."""
    told = subprocess.run(["exiftool", "-j", "-G", "-a", "-ee3", "-u", "-r", str(folder)], env=ENV, capture_output=True, text=True, check=True)
    files = json.loads(told.stdout)
    assert files
    tags = {tag for f in files for tag in f if tag.split(":")[0] not in ("SourceFile", "ExifTool", "File", "JFIF", "RIFF", "Composite")}
    assert not tags
    names = {tag.split(":")[1] for f in files for tag in f if tag != "SourceFile"}
    assert not names & {"GPSLatitude", "Make", "Model", "Software", "Comment", "ProfileDescription", "ThumbnailImage", "DateTimeOriginal"}


def test_eight_orientations_are_one_picture(sources, tmp_path):
    # A real photo, turned without loss as a camera that was held so would have stored it.
    turns = ([], ["-flip", "horizontal"], ["-rotate", "180"], ["-flip", "vertical"], ["-transpose"], ["-rotate", "270"], ["-transverse"], ["-rotate", "90"])
    photo = find(sources, "exiv2-bug922a.jpg")
    stored = []
    subprocess.run(["jpegtran", "-copy", "none", "-crop", "2560x1920+0+0", "-outfile", str(tmp_path / "photo.jpg"), photo], env=ENV, check=True)
    for n, turn in enumerate(turns, 1):
        file = tmp_path / f"{n}.jpg"
        subprocess.run(["jpegtran", "-perfect", *turn, "-outfile", str(file), str(tmp_path / "photo.jpg")], env=ENV, check=True)
        subprocess.run(["exiftool", "-q", "-overwrite_original", f"-Orientation#={n}", str(file)], env=ENV, check=True)
        stored.append(str(file))
    # And those that others test with.
    theirs = [find(sources, f"rotation/{n}.jpg") for n in range(2, 9)]
    out = tmp_path / "out"
    out.mkdir()
    said, _ = show("--sizes", "320", "--out", out, *stored, *theirs)
    assert all(line["facts"]["orientation"] == int(pathlib.Path(line["file"]).stem) for line in said)
    # Theirs are of different sizes, but all upright.
    assert all(line["facts"]["width"] < line["facts"]["height"] for line in said if line["file"] in theirs)
    all_pixels = [pixels(p) for p in sorted(out.glob(f"{str(tmp_path).replace('/', '_')}_?.jpg.320.jpg"))]
    assert len(all_pixels) == 8
    worst = max(difference(all_pixels[0], p) for p in all_pixels[1:])
    print(f"mean difference of 8 orientations: {worst:.2f} of 255")
    assert worst < 3


def test_photos_of_phones(sources, tmp_path):
    heic, avif = find(sources, "2021-02-13-1929.heic"), find(sources, "avif-orientation-6.avif")
    said, _ = show("--out", tmp_path, heic, avif)
    of = {line["file"]: line for line in said}
    facts = of[heic]["facts"]
    assert (facts["width"], facts["height"], facts["model"], facts["taken"], facts["offset"]) == (3024, 4032, "iPhone XR", "2021-02-13T11:03:31", -360)
    assert abs(facts["latitude"] - 30.58) < 0.01 and abs(facts["longitude"] + 88.07) < 0.01
    assert facts["lens"].startswith("iPhone XR back camera")
    facts = of[avif]["facts"]
    # Turned by the container alone: once, not twice.
    assert (facts["width"], facts["height"], facts["model"]) == (3024, 4032, "iPhone XS")
    for line in said:
        assert [(r["size"], r["type"], r["width"], r["height"]) for r in line["renditions"]] == [
            (s, t, s * 3 // 4, s) for s in (2048, 1280, 640, 320) for t in ("webp", "jpg")]
    nothing_but_pixels(tmp_path)


def test_a_raw_file_is_shown_by_its_preview_or_said_to_have_none(sources):
    (line,), _ = show(find(sources, "IMG_1361.dng"))
    assert line["verdict"] == "undecodable" and "preview" in line["reason"]


def test_children_die_with_the_daemon(tmp_path):
    file = tmp_path / "forever.jpg"
    file.write_bytes(b"\xff\xd8\xfftrespass forever")
    pool = subprocess.Popen([TRY, "--program", str(PARTS / "picture_trespasser"), str(file)], env=ENV, stdout=subprocess.DEVNULL)
    children = []
    end = time.monotonic() + 60
    while not children and time.monotonic() < end:
        time.sleep(0.1)
        children = pathlib.Path(f"/proc/{pool.pid}/task/{pool.pid}/children").read_text().split()
    assert children
    time.sleep(0.5)
    pool.send_signal(signal.SIGKILL)
    pool.wait()
    while any(running(c) for c in children) and time.monotonic() < end:
        time.sleep(0.1)
    assert not any(running(c) for c in children)


def running(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in ("Z", "X")
    except OSError:
        return False
