"""Galleries at three real homes: real photos in by S3, pages out at every home, one home killed, private links, an export."""
import json
import os
import pathlib
import re
import subprocess
import urllib.parse

import pytest
import requests

from conftest import BIN, ROOT, STORAGECTL, sha, tree_sums, until

pytestmark = pytest.mark.skipif(not (BIN.resolve() / "storagectl").exists(), reason="nothing is built")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Debian's own: some wallpapers, made smaller by nobody."""
    cache = ROOT / "build/demo-cache"
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / "mate-backgrounds"
    if not folder.exists():
        subprocess.run("apt-get -qq download mate-backgrounds || { apt-get -qq update && apt-get -qq download mate-backgrounds; }", shell=True, cwd=cache, check=True)
        subprocess.run("dpkg -x mate-backgrounds_*.deb mate-backgrounds", shell=True, cwd=cache, check=True)
    found = sorted(folder.rglob("*.jpg"))[:6]
    assert len(found) == 6
    return {f"holidays/{'sea' if i % 2 else 'hills'}/{p.name}": p.read_bytes() for i, p in enumerate(found)}


def ctl(cluster, *args, home=0):
    done = subprocess.run([STORAGECTL, "--data-dir", str(cluster.homes[home].dir), "gallery", *args, "--json"], capture_output=True, text=True, timeout=300)
    return done.returncode, json.loads(done.stdout)


def must(cluster, *args, home=0):
    code, out = ctl(cluster, *args, home=home)
    assert code == 0, out
    return out


def page(cluster, path="/", home=0, host="photos-gallery", **more):
    headers = {"Host": f"{host}.web.localhost"} | more.pop("headers", {})
    return requests.get(f"http://{cluster.homes[home].web}{path}", headers=headers, timeout=30, allow_redirects=False, **more)


def there(cluster, path="/", home=0, wanted=200, **more):
    """A visitor is shown what his home has of its own, which may come there a moment after the answer to who wrote it."""

    def found():
        r = page(cluster, path, home=home, **more)
        assert r.status_code == wanted, (path, r.status_code)
        return [r]  # a refusal alone counts as false

    return until(f"home {home} answers {wanted} to {path}", found, 60, 0.2)[0]


def shown(cluster, count, home=0):
    """Each home tells of its own work only, and larger sizes may be another one's: all that are up have nothing left to do."""

    def enough():
        for h in [home] + [i for i, x in enumerate(cluster.homes) if i != home and x.alive()]:
            s = must(cluster, "status", "photos", home=h)
            left = {k: s[k] for k in ("waiting", "completing", "standing_by", "looking", "last_error") if s.get(k)}
            assert s["photos"] == count and not left.keys() & {"waiting", "completing", "standing_by", "looking"}, (h, s["photos"], left)
        return True

    until(f"{count} photos are shown with all their sizes", enough, 480, 0.3)


@pytest.fixture(scope="module")
def gallery(cluster, photos):
    s3 = cluster.s3(0)
    s3.create_bucket(Bucket="photos")
    for key, body in photos.items():
        s3.put_object(Bucket="photos", Key=key, Body=body)
    s3.put_object(Bucket="photos", Key="notes.txt", Body=b"no picture")
    s3.put_object(Bucket="photos", Key="broken.jpg", Body=b"\xff\xd8\xff\xe0" + b"not a JPEG any more" * 20)
    must(cluster, "create", "photos", "--title", "Summer & sea")
    shown(cluster, len(photos))
    return cluster


def test_pages_in_two_languages_without_a_script(gallery):
    english, french = page(gallery), page(gallery, headers={"Accept-Language": "fr-FR,fr;q=0.9,en;q=0.5"})
    assert english.status_code == 200 and french.status_code == 200
    assert 'lang="en"' in english.text and 'lang="fr"' in french.text
    assert "Summer &amp; sea" in english.text and "Accept-Language" in english.headers["Vary"]
    assert "default-src 'none'" in english.headers["Content-Security-Policy"]
    for language in ("en", "fr"):
        lost = there(gallery, "/nowhere.html", wanted=404, headers={"Accept-Language": language})
        assert f'lang="{language}"' in lost.text and "default-src 'none'" in lost.headers["Content-Security-Policy"] and "Accept-Language" in lost.headers["Vary"]
    links = re.findall(r'href="([^"#]+)"', english.text)
    seen = set()
    for link in links:
        path = urllib.parse.urljoin("/", link)
        if path in seen or not path.startswith("/"):
            continue
        seen.add(path)
        there(gallery, path)
    assert any(p.startswith("/p/") for p in seen) and any(p.startswith("/m/") or p.startswith("/a/") for p in seen)


def test_renditions_and_originals(gallery, photos):
    for key, body in photos.items():
        photo = sha(body)
        name = key.rsplit("/", 1)[1]
        original = there(gallery, f"/o/{photo}/{urllib.parse.quote(name)}", home=1)
        assert sha(original.content) == photo
        assert original.headers["Content-Type"] == "image/jpeg"
        small = there(gallery, f"/t/{photo}/320.webp", home=2)
        assert small.headers["Content-Type"] == "image/webp" and "immutable" in small.headers["Cache-Control"]
        assert small.content[:4] == b"RIFF" and len(small.content) < 60_000
        out = subprocess.run(["exiftool", "-json", "-G", "-"], input=small.content, capture_output=True, check=True)
        groups = {k.split(":")[0] for k in json.loads(out.stdout)[0]}
        assert not groups & {"EXIF", "XMP", "IPTC", "GPS", "ICC_Profile", "MakerNotes"}, groups


def test_what_cannot_be_shown_is_named_and_what_is_no_picture_is_left_alone(gallery, photos):
    failures = must(gallery, "failures", "photos")["failures"]
    assert [f["key"] for f in failures] == ["broken.jpg"] and failures[0]["reason"]
    assert must(gallery, "status", "photos")["photos"] == len(photos)
    keys = [o["Key"] for o in gallery.s3(0).list_objects_v2(Bucket="photos-gallery", Prefix="f/")["Contents"]]
    assert page(gallery, "/" + keys[0]).status_code == 404  # for the owner, not for visitors


def test_the_same_photo_twice_is_one_and_a_removed_one_goes(gallery, photos):
    key, body = next(iter(photos.items()))
    s3 = gallery.s3(2)
    s3.put_object(Bucket="photos", Key="copies/again.jpg", Body=body)
    shown(gallery, len(photos))
    there(gallery, "/a/copies/")
    s3.delete_object(Bucket="photos", Key="copies/again.jpg")
    there(gallery, "/a/copies/", wanted=404)
    shown(gallery, len(photos))
    there(gallery, f"/p/{sha(body)}/")


def test_one_home_killed_and_the_gallery_is_the_same_from_the_others(gallery, photos):
    def equal():
        all_three = [there(gallery, "/", home=h).headers["ETag"] for h in range(3)]
        return all_three if len(set(all_three)) == 1 else None

    etags = until("the three show the same", equal, 60)
    one = sha(next(iter(photos.values())))
    for h in range(3):
        there(gallery, f"/t/{one}/640.jpg", home=h)
    gallery.homes[0].kill()
    try:
        for h in (1, 2):
            assert page(gallery, "/", home=h).headers["ETag"] == etags[0]
            assert page(gallery, f"/t/{sha(next(iter(photos.values())))}/640.jpg", home=h).status_code == 200
        # And it goes on: a photo that comes now is shown.
        gallery.s3(1).put_object(Bucket="photos", Key="later/late.jpg", Body=list(photos.values())[0] + b"\0")
        shown(gallery, len(photos) + 1, home=1)
        late = sha(list(photos.values())[0] + b"\0")
        for path in (f"/p/{late}/", f"/t/{late}/320.webp"):
            there(gallery, path, home=2)
        # One zone awake is enough to look.
        gallery.homes[1].kill()
        assert page(gallery, f"/p/{late}/", home=2).status_code == 200
        assert page(gallery, f"/t/{late}/320.webp", home=2).status_code == 200
        assert page(gallery, "/", home=2).status_code == 200
    finally:
        gallery.homes[0].start()
        if not gallery.homes[1].alive():
            gallery.homes[1].start()
    gallery.wait_whole()
    gallery.s3(1).delete_object(Bucket="photos", Key="later/late.jpg")
    shown(gallery, len(photos))


def test_lost_pictures_come_back_because_somebody_looks_and_damaged_originals_are_found_on_the_way(gallery, photos):
    s3 = gallery.s3(0)
    ids = {sha(body): key for key, body in photos.items()}
    before = {o["Key"] for o in s3.list_objects_v2(Bucket="photos-gallery", Prefix="t/")["Contents"]}
    assert {k.split("/")[1] for k in before} == set(ids)
    for home in gallery.homes[:2]:  # the third one's are whole
        for file in home.blocks():
            content = bytearray(file.read_bytes())
            content[len(content) // 2] ^= 1
            file.write_bytes(content)
    for key in before:
        s3.delete_object(Bucket="photos-gallery", Key=key)

    def all_back():
        # A home shows its own copy, and the removal may reach it after the answer to who removed: somebody looks again until all are written.
        answers = {key: page(gallery, "/" + key, home=1).status_code for key in sorted(before)}
        now = {o["Key"] for o in s3.list_objects_v2(Bucket="photos-gallery", Prefix="t/").get("Contents", [])}
        assert now == before and set(answers.values()) == {200}, (sorted(before - now), sorted(now - before), {k: v for k, v in answers.items() if v != 200})
        return True

    until("all that was looked at is there again", all_back, 180, 0.5)
    for home in (0, 1):
        for photo, key in ids.items():
            assert sha(there(gallery, f"/o/{photo}/{urllib.parse.quote(key.rsplit('/', 1)[1])}", home=home).content) == photo
    found = [h.status()["this_node"]["corrupt_found"] for h in gallery.homes]
    assert found[0] and found[1] and not found[2], found
    until("what was found damaged is whole again", lambda: all(n["repaired"] >= n["corrupt_found"] for n in (h.status()["this_node"] for h in gallery.homes)), 60, 0.5)
    shown(gallery, len(photos))
    assert sum(must(gallery, "status", "photos", home=h)["restored_here"] for h in range(3)) > 0


def test_roles_are_told_and_a_dark_home_is_none_to_choose(gallery):
    def offers(home):
        return json.loads(subprocess.run([STORAGECTL, "--data-dir", str(gallery.homes[home].dir), "--json", "roles"], capture_output=True, text=True, timeout=60, check=True).stdout)["roles"]

    told = offers(1)
    assert {(o["role"], o["zone"]) for o in told} == {(r, h.zone) for r in ("photohub", "thumbhub", "metahub", "webui") for h in gallery.homes}
    assert all(o["up"] for o in told) and all(o["self"] == (o["zone"] == gallery.homes[1].zone) for o in told)
    until("lines were measured", lambda: all(o.get("rtt_ms", 0) > 0 for o in offers(1) if not o["self"]), 60, 1)
    gallery.homes[0].kill()
    try:
        dark = gallery.homes[0].zone
        until("the dark home is last, and not up", lambda: all(o["up"] == (o["zone"] != dark) for o in offers(1)) and [o["zone"] for o in offers(1)][2::3] == [dark] * 4, 60, 1)
    finally:
        gallery.homes[0].start()
    gallery.wait_whole()


def test_a_private_gallery_opens_to_a_link_until_it_is_revoked(gallery):
    must(gallery, "set", "photos", "--private")
    there(gallery, "/", home=1, wanted=403)
    link = must(gallery, "link", "create", "photos", "aunt")["link"]
    query = "?" + link.split("?", 1)[1]
    first = there(gallery, "/" + query, home=2, wanted=303)
    assert first.headers["Location"] == "/" and "HttpOnly" in first.headers["Set-Cookie"]
    cookie = first.headers["Set-Cookie"].split(";")[0]
    inside = there(gallery, "/", home=1, headers={"Cookie": cookie})
    assert "key=" not in inside.text
    assert page(gallery, "/", headers={"Cookie": cookie[:-1] + "0"}).status_code in (403, 200 if cookie.endswith("0") else 403)
    assert page(gallery, "/c/root.json").status_code == 403
    must(gallery, "link", "revoke", "photos", "aunt")
    there(gallery, "/", home=1, wanted=403, headers={"Cookie": cookie})
    must(gallery, "set", "photos", "--public")
    there(gallery, "/")


def test_an_export_is_the_whole_gallery(gallery, photos, tmp_path):
    out = must(gallery, "export", "photos", str(tmp_path / "site"))
    sums = tree_sums(tmp_path / "site")
    assert out["files"] == len(sums) and "index.html" in sums and "index.fr.html" in sums
    assert not any(k.startswith(("n/", "f/")) for k in sums)
    originals = {v for k, v in sums.items() if k.startswith("o/")}
    assert originals == {sha(b) for b in photos.values()}
    for name in sums:
        if name.endswith(".html") and not name.startswith("404."):
            folder = pathlib.Path(name).parent
            for link in re.findall(r'(?:href|src)="([^"#:]+)"', (tmp_path / "site" / name).read_text()):
                at = os.path.normpath(folder / urllib.parse.unquote(link))
                assert at in sums, f"{name} links to {link}"
    code, why = ctl(gallery, "export", "photos", str(tmp_path / "site"))
    assert code == 1 and "not empty" in why["error"]["message"]


def test_wrong_words_get_clear_answers(gallery):
    for args, words in ((("create", "photos"), "has a gallery already"), (("status", "nothing"), "no bucket"), (("create", "photos-gallery"), "holds the pages"),
                        (("link", "create", "photos", ""), "name")):
        code, why = ctl(gallery, *args)
        assert code != 0 and (code == 2) == (why["error"]["code"] == "invalid_argument") and words in why["error"]["message"], (code, why)


def test_removing_the_gallery_leaves_the_photos(gallery, photos):
    must(gallery, "delete", "photos")
    there(gallery, "/", wanted=404)
    listed = {o["Key"] for o in gallery.s3(0).list_objects_v2(Bucket="photos")["Contents"]}
    assert set(photos) <= listed
