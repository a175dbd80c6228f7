#!/usr/bin/env python3
"""Makes a library of photos for the browser's tests: Debian's pictures, dated, in folders, rendered by our own renderer.
usage: library.py CACHE PICTURE_TRY      CACHE/library gets records (lines of JSON), t/ (renditions) and o/ (originals)
Packages are fetched and photos rendered once for each CACHE."""
import hashlib
import json
import pathlib
import shutil
import subprocess
import sys

PACKAGES = ["mate-backgrounds", "plasma-workspace-wallpapers", "lomiri-wallpapers-16.04", "lomiri-wallpapers-20.04"]
BACKGROUNDS, WALLPAPERS = "usr/share/backgrounds", "usr/share/wallpapers"
# Picture (and for an upright one, a piece cut out of it: width, height, left, top), name in the bucket, day.
PICTURES = [
    ("mate/nature/Dune.jpg", "", "Holidays/2024 Desert/IMG_0412.jpg", "2024:07:14 18:11:12"),
    ("picosdeeuropa_by_Aitzol_Berasategi.jpg", "", "Holidays/2024 Picos de Europa/IMG_0420.jpg", "2024:07:16 09:02:44"),
    ("picosdeeuropa_by_Aitzol_Berasategi.jpg", "1400x2100+300+0", "Holidays/2024 Picos de Europa/IMG_0421.jpg", "2024:07:16 09:03:10"),
    ("aitzgorri_by_Aitzol_Berasategi.jpg", "", "Holidays/2024 Picos de Europa/IMG_0433.jpg", "2024:07:17 11:20:01"),
    ("sunset_by_Aitzol_Berasategi.jpg", "", "Holidays/2024 Picos de Europa/IMG_0467.jpg", "2024:07:17 21:41:30"),
    ("life_by_Aitzol_Berasategi.jpg", "", "Holidays/2024 Picos de Europa/IMG_0502.jpg", "2024:07:18 10:15:00"),
    ("Infinite-Sea_by_Aury88.jpg", "", "Holidays/2024 Picos de Europa/IMG_0533.jpg", "2024:07:19 08:00:09"),
    ("mate/nature/Storm.jpg", "", "Holidays/2024 Picos de Europa/IMG_0540.jpg", "2024:07:19 19:20:00"),
    ("Kite/contents/images/2560x1600.jpg", "", "Holidays/2024 Picos de Europa/IMG_0561.jpg", "2024:07:20 16:45:12"),
    ("Kite/contents/images/2560x1600.jpg", "1000x1500+900+50", "Holidays/2024 Picos de Europa/IMG_0562.jpg", "2024:07:20 16:45:58"),
    ("friends_by_Aitzol_Berasategi.jpg", "", "Holidays/2024 Picos de Europa/IMG_0588.jpg", "2024:07:21 12:12:12"),
    ("BytheWater/contents/images/2560x1600.jpg", "", "Holidays/2024 Picos de Europa/IMG_0590.jpg", "2024:07:22 20:02:00"),
    ("Dragonfly_by_Bolly.jpg", "", "Garden/DSC_1001.jpg", "2024:06:02 15:31:00"),
    ("mate/nature/LadyBird.jpg", "", "Garden/DSC_1010.jpg", "2024:06:08 11:05:31"),
    ("mate/nature/YellowFlower.jpg", "", "Garden/DSC_1013.jpg", "2024:06:08 11:09:02"),
    ("mate/nature/TwoWings.jpg", "", "Garden/DSC_1022.jpg", "2024:06:15 17:40:00"),
    ("mate/nature/TwoWings.jpg", "700x1000+300+50", "Garden/DSC_1023.jpg", "2024:06:15 17:40:40"),
    ("mate/nature/Garden.jpg", "", "Garden/DSC_1030.jpg", "2024:06:21 09:00:00"),
    ("seeding_by_Clements_Engelhardt.jpg", "", "Garden/DSC_1044.jpg", "2024:06:22 18:33:09"),
    ("mate/nature/GreenMeadow.jpg", "", "Garden/DSC_1051.jpg", "2024:06:23 07:20:00"),
    ("mate/nature/RainDrops.jpg", "", "Garden/Rain/DSC_1100.jpg", "2024:05:04 08:12:00"),
    ("mate/nature/Aqua.jpg", "", "Garden/Rain/DSC_1101.jpg", "2024:05:04 08:14:00"),
    ("mate/nature/Wood.jpg", "", "Garden/DSC_0950.jpg", "2024:05:11 16:00:00"),
    ("Picture_1A_by_freespace.jpg", "", "Grand-mère & cie/P1000100.jpg", "2024:05:19 13:00:00"),
    ("Picture_0B_by_freespace.jpg", "", "Grand-mère & cie/P1000101.jpg", "2024:05:19 13:05:00"),
    ("Wine_by_Jakkub_Mede.jpg", "", "Grand-mère & cie/P1000111.jpg", "2024:05:19 20:30:00"),
    ("Wine_by_Jakkub_Mede.jpg", "800x1000+900+0", "Grand-mère & cie/P1000112.jpg", "2024:05:19 20:31:00"),
    ("Bridge_by_Sander_Klootwijk.jpg", "", "Holidays/2023 Autumn/IMG_9001.jpg", "2023:10:14 10:00:00"),
    ("Autumn/contents/images/2560x1600.jpg", "", "Holidays/2023 Autumn/IMG_9002.jpg", "2023:10:14 15:22:00"),
    ("Autumn/contents/images/2560x1600.jpg", "1000x1400+200+100", "Holidays/2023 Autumn/IMG_9003.jpg", "2023:10:14 15:23:00"),
    ("FallenLeaf/contents/images/2560x1600.jpg", "", "Holidays/2023 Autumn/IMG_9010.jpg", "2023:10:15 09:41:00"),
    ("Kleiber_by_Lukas_Baubkus.jpg", "", "Holidays/2023 Autumn/IMG_9021.jpg", "2023:10:16 12:00:00"),
    ("EveningGlow/contents/images/2560x1600.jpg", "", "Holidays/2023 Autumn/IMG_9030.jpg", "2023:10:16 18:48:00"),
    ("umang_by_Abhishek_Mudgal.jpg", "", "Holidays/2023 Autumn/IMG_9044.jpg", "2023:10:17 11:11:00"),
    ("Fossa_by_Jasper_Roks.jpg", "", "Zoo/IMG_7001.jpg", "2023:08:05 14:00:00"),
    ("greentock_by_Peter_Nerlich.jpg", "", "Zoo/IMG_7002.jpg", "2023:08:05 14:30:00"),
    ("ColdRipple/contents/images/2560x1600.jpg", "", "Zoo/IMG_7010.jpg", "2023:08:05 16:00:00"),
    ("OneStandsOut/contents/images/2560x1600.jpg", "", "IMG_0001.jpg", "2023:03:26 12:00:00"),
    ("ColorfulCups/contents/images/2560x1600.jpg", "", "IMG_0002.jpg", "2023:03:26 16:20:00"),
    ("Path/contents/images/2560x1600.jpg", "", "IMG_0003.jpg", "2022:12:31 23:59:00"),
    ("mate/nature/Blinds.jpg", "", "Scans/<scan> \"1\".jpg", ""),
    ("free_by_Peter_Nerlich.jpg", "", "Scans/scan 2.jpg", ""),
]
LENSES = [("Canon", "Canon EOS 70D", "EF-S18-135mm f/3.5-5.6 IS STM"), ("NIKON CORPORATION", "NIKON D5300", "35mm f/1.8"), ("Apple", "iPhone XR", "iPhone XR back camera 4.25mm f/1.8")]


def fetch(cache):
    for package in PACKAGES:
        if (cache / f"{package}.done").exists():
            continue
        for command in (["true"], ["apt-get", "-qq", "update"]):
            subprocess.run(command, check=False)
            if subprocess.run(["apt-get", "-qq", "download", package], cwd=cache, check=False, stderr=subprocess.DEVNULL).returncode == 0:
                break
        debs = list(cache.glob(f"{package}_*.deb"))
        if not debs:
            sys.exit(f"library.py: apt could not fetch {package}")
        subprocess.run(["dpkg", "-x", debs[0], cache / "debian"], check=True)
        debs[0].unlink()
        (cache / f"{package}.done").touch()


def prepare(cache, number, picture, cut, day):
    """A file of its own, as a camera would have written it."""
    roots = [cache / "debian" / BACKGROUNDS, cache / "debian" / WALLPAPERS]
    source = next(r / picture for r in roots if (r / picture).exists())
    to = cache / "originals" / f"{number}.jpg"
    if cut:
        subprocess.run(["jpegtran", "-crop", cut, "-copy", "all", "-outfile", to, source], check=True)
    else:
        shutil.copy(source, to)
    make, model, lens = LENSES[number % 3]
    tags = ["-overwrite_original", "-q", "-m", "-Orientation#=1"]
    if day:
        tags += [f"-DateTimeOriginal={day}", "-OffsetTimeOriginal=+02:00", f"-Make={make}", f"-Model={model}", f"-LensModel={lens}", f"-ISO={100 << number % 4}",
                 f"-ExposureTime=1/{60 << number % 5}", f"-FNumber={[1.8, 2.8, 5.6, 8][number % 4]}", f"-FocalLength={[4.25, 35, 50, 135][number % 4]}"]
    else:
        tags += ["-all="]
    subprocess.run(["exiftool", *tags, to], check=True)
    return to


def main():
    cache, picture_try = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve()
    wanted = hashlib.sha256(pathlib.Path(__file__).read_bytes()).hexdigest()
    library = cache / "library"
    stamp = library / "made-of"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    cache.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(library, ignore_errors=True)
    for name in ("originals", "renditions"):
        shutil.rmtree(cache / name, ignore_errors=True)
        (cache / name).mkdir()
    fetch(cache)
    files = {str(prepare(cache, i, picture, cut, day)): name for i, (picture, cut, name, day) in enumerate(PICTURES)}
    out = subprocess.run([picture_try, "--out", cache / "renditions", *files], check=True, capture_output=True, text=True).stdout
    records = []
    for line in out.splitlines():
        made = json.loads(line)
        if "summary" in made:
            continue
        if made.get("verdict") != "picture":
            sys.exit(f"library.py: {made}")
        path, facts, name = pathlib.Path(made["file"]), made["facts"], files[made["file"]]
        content = path.read_bytes()
        content_id = hashlib.sha256(content).hexdigest()
        for folder in ("t", "o"):
            (library / folder / content_id).mkdir(parents=True)
        for r in made["renditions"]:
            shutil.move(cache / "renditions" / f"{made['file'].replace('/', '_')}.{r['size']}.{r['type']}", library / "t" / content_id / f"{r['size']}.{r['type']}")
        shutil.move(path, library / "o" / content_id / name.split("/")[-1])
        record = {"v": 1, "id": content_id, "renditions": made["renditions"], "names": [{"key": name, "bytes": len(content)}]}
        for ours, theirs in {"f": "f_number"}.items():
            if theirs in facts:
                record[ours] = facts[theirs]
        record |= {k: facts[k] for k in ("format", "width", "height", "taken", "offset", "make", "model", "lens", "iso", "exposure", "focal", "thumbhash") if k in facts}
        records.append(json.dumps(record))
    (library / "records").write_text("\n".join(records) + "\n")
    stamp.write_text(wanted)


if __name__ == "__main__":
    main()
