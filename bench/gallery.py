#!/usr/bin/env python3
"""Measures galleries at three real homes on loopback.
usage: bench/gallery.py latency|library|feed|rate      programs: build/bin, or the folder that GRENIER_BIN names
  latency   from the end of a PUT until a photo's first picture, its whole set, and its page at another home are there
  library   what one photo more costs in a gallery of 1 000 and of 100 000 photos: processor time of the homes, and bytes written
            (needs tests/browser/run once, for its library of photos, and pages_try)
  rate      one home, photos of 2 megapixels and more that are there already: how many a second get their first picture, how many all of them, and the
            memory of the home with its decoders, sampled (needs tests/browser/run once)
  feed      PUTs of small objects with the feed of changes read by a gallery, and without
"""
import concurrent.futures
import hashlib
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/integration"))
import conftest  # noqa: E402
import requests  # noqa: E402

TICKS = os.sysconf("SC_CLK_TCK")
PHOTOS = ROOT / "build/demo-cache/mate-backgrounds"  # fetched by tests/integration/test_gallery.py


def cpu(homes):
    """Seconds of processor time of the homes themselves, without their decoders."""
    total = 0
    for h in homes:
        stat = pathlib.Path(f"/proc/{h.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        total += int(stat[11]) + int(stat[12])
    return total / TICKS


def median(values):
    return statistics.median(values) if values else float("nan")


def photos():
    found = sorted(PHOTOS.rglob("*.jpg"), key=lambda p: -p.stat().st_size)
    if not found:
        sys.exit(f"no photos in {PHOTOS}: run tests/integration/test_gallery.py first")
    return found


def latency(c):
    s3 = c.s3(0)
    s3.create_bucket(Bucket="photos")
    c.homes[0].ctl("gallery", "create", "photos")
    time.sleep(3)
    session = requests.Session()

    def there(path, home=0):
        return session.get(f"http://{c.homes[home].web}{path}", headers={"Host": "photos-gallery.web.localhost"}, timeout=10).status_code == 200

    seen = {}
    chosen = photos()[:3]
    for i in range(18):
        photo = chosen[i % 3]
        body = photo.read_bytes() + bytes([i + 1])
        name = hashlib.sha256(body).hexdigest()
        s3.put_object(Bucket="photos", Key=f"l/{i}.jpg", Body=body)
        start, at = time.monotonic(), {}
        wanted = {"first": (f"/t/{name}/320.webp", 0), "set": (f"/t/{name}/2048.jpg", 0), "page": (f"/p/{name}/", 1)}
        while len(at) < 3 and time.monotonic() - start < 60:
            for what, (path, home) in wanted.items():
                if what not in at and there(path, home):
                    at[what] = time.monotonic() - start
            time.sleep(0.02)
        seen.setdefault(f"{photo.name}, {photo.stat().st_size / 1e6:.1f} MB", []).append(at)
        time.sleep(2)
    for name, all_at in seen.items():
        told = "; ".join(f"{what} {min(v):.2f} to {max(v):.2f} s (median {median(v):.2f})" for what in ("first", "page", "set") for v in [[a[what] for a in all_at if what in a]])
        print(f"{name}: {told}")
    print(f"load {os.getloadavg()[0]:.1f}")


def library(c):
    """A catalogue of so many photos is put in as objects; then photos come, and what they cost is counted."""
    made = ROOT / "build/browser/library/records"
    pages_try = ROOT / "build/server/gallery/pages_try"
    if not made.exists() or not pages_try.exists():
        sys.exit("run tests/browser/run first")
    costs = {}
    with tempfile.TemporaryDirectory(dir=c.folder) as work:
        for count in (1000, 100_000):
            bucket = f"photos{count}"
            site = pathlib.Path(work) / str(count)
            site.mkdir()
            subprocess.run([pages_try, site, "--title", "Library", "--bucket", bucket, "--count", str(count), "--no-pages"], stdin=made.open(), check=True, stdout=subprocess.DEVNULL)
            s3 = c.s3(0)
            s3.create_bucket(Bucket=bucket)
            c.homes[0].ctl("gallery", "create", bucket)
            time.sleep(3)
            # The newest months' records: those that a new photo of that time touches.
            month = "2024-12"
            near = [p for p in (site / "i").iterdir() if f'"taken":"{month}' in p.read_text()]
            files = [p for p in (site / "c").rglob("*") if p.is_file() and p.name != "root.json"] + near
            with concurrent.futures.ThreadPoolExecutor(16) as many:
                list(many.map(lambda p: s3.put_object(Bucket=f"{bucket}-gallery", Key=str(p.relative_to(site)), Body=p.read_bytes()), files))
            s3.put_object(Bucket=f"{bucket}-gallery", Key="c/root.json", Body=(site / "c/root.json").read_bytes())
            time.sleep(5)
            costs[count] = ingest(c, bucket, month, 8, warm=True)
            costs[count] = ingest(c, bucket, month, 40)
            status = c.homes[0].ctl("gallery", "status", bucket)
            print(f"{count} photos ({len(files)} objects put in, status says {status['photos']}): one more costs {costs[count][0]:.3f} s of the homes' processors, {costs[count][1]:.2f} s by the clock")
    print(f"ratio: processor {costs[100_000][0] / costs[1000][0]:.2f}, clock {costs[100_000][1] / costs[1000][1]:.2f}")


def ingest(c, bucket, month, n, warm=False):
    """One after the other, each shown in all its sizes before the next."""
    s3 = c.s3(0)
    small = min(photos(), key=lambda p: p.stat().st_size)
    session = requests.Session()
    before, start = cpu(c.homes), time.monotonic()
    for i in range(n):
        file = pathlib.Path(c.folder) / "one.jpg"
        file.write_bytes(small.read_bytes())
        day = f"{month.replace('-', ':')}:{1 + i % 27:02} 12:{i % 60:02}:{30 if warm else 10}"
        subprocess.run(["exiftool", "-q", "-overwrite_original", f"-DateTimeOriginal={day}", f"-ImageDescription={bucket}{i}{warm}", str(file)], check=True)
        body = file.read_bytes()
        name = hashlib.sha256(body).hexdigest()
        s3.put_object(Bucket=bucket, Key=f"copies/{month}/new{i}{warm}.jpg", Body=body)
        conftest.until("its record is there", lambda: c.homes[0].ctl("gallery", "status", bucket)["waiting"] == 0 and session.get(
            f"http://{c.homes[0].web}/i/{name}.json", headers={"Host": f"{bucket}-gallery.web.localhost"}, timeout=10).status_code == 200, 120, 0.05)
    return (cpu(c.homes) - before) / n, (time.monotonic() - start) / n


def decoders(process):
    return " ".join(p.read_text() for p in pathlib.Path(f"/proc/{process.pid}/task").glob("*/children")).split()


def all_cpu(process):
    """Of a home and of its decoders, those that have ended too."""
    total = 0
    for pid in [str(process.pid), *decoders(process)]:
        try:
            stat = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            total += sum(int(n) for n in stat[11:15])
        except OSError:
            pass
    return total / TICKS


def resident(process):
    """Bytes of a home and of its decoders: what each has for itself, and what they share once."""
    total = 0
    for pid in [str(process.pid), *decoders(process)]:
        try:
            for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
        except OSError:
            pass
    return total


def rate(c):
    told = json.loads(subprocess.run(["exiftool", "-q", "-json", "-n", "-ImageWidth", "-ImageHeight", "-ext", "jpg", "-r", str(ROOT / "build/browser/debian")], capture_output=True, text=True, check=True).stdout)
    large = {}
    for f in told:
        if f.get("ImageWidth", 0) * f.get("ImageHeight", 0) >= 2_000_000:
            body = pathlib.Path(f["SourceFile"]).read_bytes()
            large[hashlib.sha256(body).hexdigest()] = (body, f["ImageWidth"] * f["ImageHeight"])
    home, s3 = c.homes[0], c.s3(0)
    s3.create_bucket(Bucket="photos")
    for name, (body, _) in large.items():
        s3.put_object(Bucket="photos", Key=f"{name[:8]}.jpg", Body=body)
    print(f"{len(large)} photos, {sum(len(b) for b, _ in large.values()) / 1e6:.0f} MB, {sum(p for _, p in large.values()) / 1e6 / len(large):.1f} MP each in the mean; before: {resident(home.process) / 2**20:.0f} MiB")
    start, peak, begun, first, before = time.monotonic(), 0, None, None, all_cpu(home.process)
    home.ctl("gallery", "create", "photos")
    while True:
        peak = max(peak, resident(home.process))
        if not begun and decoders(home.process):
            begun = time.monotonic() - start
        # A photo's record comes last, when its first pictures and its page are there. Not asked as a visitor: what visitors look at is next.
        if first or s3.list_objects_v2(Bucket="photos-gallery", Prefix="i/")["KeyCount"] == len(large):
            if not first:
                first, spent = time.monotonic() - start, all_cpu(home.process) - before
            s = home.ctl("gallery", "status", "photos")
            if s["photos"] == len(large) and not s["waiting"] and not s["completing"]:
                break
        time.sleep(0.05)
    whole = time.monotonic() - start
    print(f"the first decoder starts after {begun:.1f} s; first pictures and pages of all are there after {first:.1f} s, {len(large) / first:.1f} a second in all, "
          f"{len(large) / (first - begun):.1f} from the first decoder on, {spent / len(large):.3f} s of processor time each; all pictures after {whole:.1f} s, {len(large) / whole:.1f} a second; at most {peak / 2**20:.0f} MiB; load {os.getloadavg()[0]:.1f}")


def feed(c):
    bench = ROOT / "build/bench/grenier-bench"
    s3 = c.s3(0)
    s3.create_bucket(Bucket="photos")
    s3.create_bucket(Bucket="bench")
    rates = {True: [], False: []}
    costs = {True: [], False: []}

    def put(size, clients):
        before = cpu(c.homes)
        run = subprocess.run([bench, "--endpoint", c.homes[0].url, "--bucket", "bench", "--op", "put", "--size", size, "--concurrency", str(clients), "--seconds", "8", "--region", "garage", "--json"],
                             env=os.environ | {"AWS_ACCESS_KEY_ID": c.key, "AWS_SECRET_ACCESS_KEY": c.secret}, capture_output=True, text=True, check=True)
        return json.loads(run.stdout)["results"][0], cpu(c.homes) - before

    for round_ in range(7):
        for attached in (False, True):
            if attached:
                c.homes[0].ctl("gallery", "create", "photos")
            time.sleep(6)
            one, spent = put("1KiB", 16)
            if attached:
                c.homes[0].ctl("gallery", "delete", "photos")
                time.sleep(3)
            if round_ == 0:
                continue  # to warm up
            rates[attached].append(one["rate_per_s"])
            costs[attached].append(spent / one["requests"] * 1e6)
    for attached in (False, True):
        print(f"{'with' if attached else 'without'} a reader: {[round(r) for r in rates[attached]]} PUT/s, {[round(x) for x in costs[attached]]} us of processor each")
    print(f"ratio: rate {median(rates[True]) / median(rates[False]):.3f}, processor {median(costs[True]) / median(costs[False]):.3f}")


if __name__ == "__main__":
    what = {"latency": latency, "library": library, "rate": rate, "feed": feed}.get(sys.argv[1] if len(sys.argv) == 2 else "")
    if not what:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        cluster = conftest.Cluster(pathlib.Path(folder), conftest.ZONES[:1] if what == rate else conftest.ZONES)
        try:
            what(cluster.start())
        finally:
            cluster.stop()
