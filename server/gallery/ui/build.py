#!/usr/bin/env python3
"""Makes the C++ file that carries the gallery's stylesheet and scripts.
usage: build.py SOURCE PRIVATE-FOLDER OUT.cc [NPM NODE]
Packages are fetched once for each package-lock.json, so that building again needs no network. Without npm, or when it cannot fetch, pages get
the stylesheet and no scripts: they can be read and browsed all the same."""
import hashlib
import json
import pathlib
import shutil
import subprocess
import sys

LEVELS = (-0.4, -0.13, 0, 0.13, 0.4)  # of the two colour channels: as in html.cc


def colour_classes():
    """k0 to k199: lightness in 8 steps, then red-green-blue balance in 5 times 5, as thumbhash has them."""
    rules = []
    for i in range(200):
        lightness = (i // 25 + 0.5) / 8
        p, q = LEVELS[i // 5 % 5], LEVELS[i % 5]
        blue = lightness - 2 / 3 * p
        red = (3 * lightness - blue + q) / 2
        rgb = [max(0, min(255, round(255 * c))) for c in (red, red - q, blue)]
        rules.append(f".k{i}{{background:#{''.join(f'{(c + 8) // 17:x}' for c in rgb)}}}")
    return "".join(rules)


def ratio_classes():
    """r8 to r60: width / height in steps of 0.05."""
    return "".join(f".r{i}{{--r:{i / 20:g}}}" for i in range(8, 61))


def fetch_packages(source, private, npm):
    lock = (source / "package-lock.json").read_bytes()
    stamp, wanted = private / "fetched", hashlib.sha256(lock).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return
    stamp.unlink(missing_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(source / name, private / name)
    subprocess.run([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"], cwd=private, check=True, timeout=300, stdout=subprocess.DEVNULL)
    stamp.write_text(wanted)


def licences(private):
    found = []
    for name in json.loads((private / "package.json").read_text())["dependencies"]:
        folder = private / "node_modules" / name
        about = json.loads((folder / "package.json").read_text())
        texts = [p for p in sorted(folder.iterdir()) if p.name.lower().startswith(("license", "licence"))]
        text = texts[0].read_text() if texts else f"{about.get('license')} licence; {about.get('author')}"
        found.append((f"{name} {about['version']} ({about['license']})", text))
    return found


def bytes_of(name, data):
    rows = [",".join(map(str, data[i : i + 64])) for i in range(0, len(data), 64)]
    return f"const unsigned char {name}[] = {{\n" + ",\n".join(rows) + "};\n"


def main():
    source, private, out = (pathlib.Path(a).resolve() for a in sys.argv[1:4])
    private.mkdir(parents=True, exist_ok=True)
    files, texts = {}, []
    try:
        if len(sys.argv) < 6:
            raise FileNotFoundError("npm was not found")
        npm, node = sys.argv[4:6]
        fetch_packages(source, private, npm)
        subprocess.run([node, str(source / "bundle.mjs"), str(private), str(source / "src"), str(private / "out")], check=True, timeout=120)
        files = {name: (private / "out" / name).read_bytes() for name in ("style.css", "early.js", "gallery.js")}
        texts = licences(private)
    except (OSError, subprocess.SubprocessError) as e:
        print(f"gallery/ui: pages will have no scripts: {e}", file=sys.stderr)
        own = (source / "src" / "style.css").read_text()
        files = {"style.css": "\n".join(line for line in own.splitlines() if not line.startswith("@import")).encode()}
    files["style.css"] += (colour_classes() + ratio_classes()).encode()
    files["icon.svg"] = (source / "src" / "icon.svg").read_bytes()

    code = ['// Made by gallery/ui/build.py.\n#include "gallery/ui_assets.h"\n\nnamespace grenier::gallery {\nnamespace {\n']
    keys = {}
    for i, (name, data) in enumerate(sorted(files.items())):
        kind = name.rsplit(".", 1)[1]
        keys[name] = f"assets/{hashlib.sha256(data).hexdigest()[:16]}.{kind}"
        code.append(bytes_of(f"file{i}", data))
    for i, (name, text) in enumerate(texts):
        code.append(bytes_of(f"licence{i}", text.encode()))
    types = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}
    code.append("bytes text(const unsigned char* p, std::size_t n) { return bytes(reinterpret_cast<const char*>(p), n); }\n}  // namespace\n")
    code.append("std::vector<object> asset_objects() {\n  return {")
    for i, (name, _) in enumerate(sorted(files.items())):
        code.append(f'\n      {{"{keys[name]}", text(file{i}, sizeof file{i}), "{types[keys[name].rsplit(".", 1)[1]]}", true}},')
    code.append("\n  };\n}\n\npage_assets asset_names() {\n  page_assets a;")
    for field, name in (("style", "style.css"), ("early_script", "early.js"), ("script", "gallery.js"), ("icon", "icon.svg")):
        if name in keys:
            code.append(f'\n  a.{field} = "{keys[name]}";')
    for i, (name, _) in enumerate(texts):
        code.append(f"\n  a.licences.emplace_back({json.dumps(name)}, text(licence{i}, sizeof licence{i}));")
    code.append("\n  return a;\n}\n\n}  // namespace grenier::gallery\n")
    out.write_text("".join(code))


if __name__ == "__main__":
    main()
