#!/usr/bin/env python3
"""Three real homes with a gallery, one of them killed: what homes.test.mjs looks at in a real browser.
usage: homes.py CACHE NODE      CACHE/library is made by library.py; GRENIER_BIN names the folder of the programs"""
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import tarfile
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "integration"))
import conftest  # noqa: E402
import test_pictures  # noqa: E402


def from_a_telephone(cache):
    """A HEIC that a telephone made, turned and with a place in it: of Debian's sources of exiv2."""
    name = "2021-02-13-1929.heic"
    known = [p for folder in (test_pictures.CACHE, cache / "exiv2") for p in folder.rglob(name)]
    if known:
        return known[0]
    folder = cache / "exiv2"
    folder.mkdir(exist_ok=True)
    test_pictures.apt(folder, "update")
    test_pictures.apt(folder, "source", "--download-only", "exiv2")
    with tarfile.open(next(folder.glob("*.orig.tar.*"))) as t:
        one = next(m for m in t.getmembers() if m.isfile() and m.name.endswith("/" + name))
        (folder / name).write_bytes(t.extractfile(one).read())
    return folder / name


def main(cache, node):
    photos = sorted((p for p in (cache / "library/o").rglob("*") if p.is_file()), key=lambda p: (p.stat().st_size, p.name))
    early, late = photos[:14], photos[-4:]
    telephone = from_a_telephone(cache)
    assert late[0].stat().st_size > 1 << 20, "large enough to be rendered in two steps"
    with tempfile.TemporaryDirectory() as folder:
        cluster = conftest.Cluster(pathlib.Path(folder)).start()
        try:
            s3 = cluster.s3(0)
            s3.create_bucket(Bucket="photos")
            for p in early:
                s3.put_object(Bucket="photos", Key=f"holidays/{p.name}", Body=p.read_bytes())
            cluster.homes[0].ctl("gallery", "create", "photos", "--title", "Famille Martin")

            def shown():
                s = cluster.homes[0].ctl("gallery", "status", "photos")
                assert s["photos"] == len(early) and not s["waiting"] and not s["completing"], s
                return True

            conftest.until("all photos are shown", shown, 180, 0.3)
            cluster.homes[0].kill()
            there = cluster.s3(1)

            def link(what, bucket, key):
                return there.generate_presigned_url(what, {"Bucket": bucket, "Key": key}, ExpiresIn=3600)

            world = {
                "sites": [f"http://photos-gallery.web.localhost:{h.web.split(':')[1]}/" for h in cluster.homes[1:]],
                "early": [hashlib.sha256(p.read_bytes()).hexdigest() for p in early],
                "late": [{"file": str(p), "id": hashlib.sha256(p.read_bytes()).hexdigest(), "put": link("put_object", "photos", f"late/{p.name}")} for p in late],
            }
            world["telephone"] = {"file": str(telephone), "id": hashlib.sha256(telephone.read_bytes()).hexdigest(), "put": link("put_object", "photos", "telephone/IMG_1929.HEIC")}
            lost = world["early"][3]
            world["lost"] = {"id": lost, "files": [
                {"name": f, "remove": link("delete_object", "photos-gallery", f"t/{lost}/{f}"), "get": link("get_object", "photos-gallery", f"t/{lost}/{f}")}
                for f in ("320.webp", "320.jpg", "640.webp")]}
            (pathlib.Path(folder) / "world.json").write_text(json.dumps(world))
            env = os.environ | {"GALLERY_CACHE": str(cache), "GALLERY_HOMES": f"{folder}/world.json"}
            return subprocess.run([node, "--test", "--test-reporter=spec", str(HERE / "homes.test.mjs")], env=env).returncode
        finally:
            cluster.stop()


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1]).resolve(), sys.argv[2]))
