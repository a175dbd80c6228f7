"""A damaged row store: refused at the start or noticed when it is read, and said in words; then what the words tell is done, step by step,
and everything is there again."""
import shutil
import struct
import subprocess
import time

import pytest

from conftest import STORAGECTL, Home, noise, sha, until

RECIPE = ("damaged", "Move this home's data directory away", "newcomer", "storagectl invite", "WHEN ROWS ARE LOST")


def words_of_a_start(home):
    """Starts a home that is expected to refuse; what it printed."""
    before = home.log.read_text(errors="replace") if home.log.exists() else ""
    home.start(wait=False)
    try:
        code = home.process.wait(20)
    except subprocess.TimeoutExpired:
        code = None
        home.kill()
    return code, home.log.read_text(errors="replace")[len(before):]


def flip(path, begin=0.0, end=1.0, step=7):
    data = bytearray(path.read_bytes())
    for i in range(int(len(data) * begin), int(len(data) * end), step):
        data[i] ^= 0x5A
    path.write_bytes(bytes(data))


def manifest(rows):
    flip(rows / (rows / "CURRENT").read_text().strip(), 0.1)


def current_names_nothing(rows):
    (rows / "CURRENT").write_text("MANIFEST-009999\n")


def log_in_the_middle(rows):
    flip(max(rows.glob("*.log"), key=lambda p: p.stat().st_size), 0.3, 0.32)


def log_gone(rows):
    for p in rows.glob("*.log"):
        p.unlink()


def table_gone(rows):
    max(rows.glob("*.sst"), key=lambda p: p.stat().st_size).unlink()


def table_end(rows):
    flip(max(rows.glob("*.sst"), key=lambda p: p.stat().st_size), 0.9)


@pytest.fixture(scope="module")
def worn(tmp_path_factory):
    """The data directory of a home that has both a log and tables."""
    home = Home(tmp_path_factory.mktemp("worn"), "home-lyon")
    home.start()
    for i in range(20):
        home.ctl("key", "create", f"key-{i}")
    home.kill()
    home.start()
    for i in range(20):
        home.ctl("key", "create", f"later-{i}")
    home.kill()
    return home


@pytest.mark.parametrize("damage", [manifest, current_names_nothing, lambda rows: (rows / "CURRENT").unlink(), log_in_the_middle, log_gone, table_gone, table_end],
                         ids=["manifest", "current", "current-gone", "log-middle", "log-gone", "table-gone", "table-end"])
def test_refused_at_the_start(worn, tmp_path, damage):
    home = Home(tmp_path, "home-lyon")
    shutil.copytree(worn.dir, home.dir, ignore=shutil.ignore_patterns("control.sock"))
    damage(home.dir / "rows")
    code, words = words_of_a_start(home)
    assert code == 1, words
    for w in (*RECIPE, str(home.dir)):
        assert w in words, f"'{w}' is not in: {words}"


def test_power_cut_in_the_log(worn, tmp_path):
    """Only the last record cut short: that is what a power cut leaves, and nobody was told that it was kept."""
    home = Home(tmp_path, "home-lyon")
    shutil.copytree(worn.dir, home.dir, ignore=shutil.ignore_patterns("control.sock"))
    log = max((home.dir / "rows").glob("*.log"), key=lambda p: p.stat().st_size)
    with open(log, "ab") as f:
        f.write(struct.pack("<IHB", 0x12345678, 1000, 1) + noise(300, "begun"))  # a record of 1000 bytes, begun
    home.start()
    assert len(home.ctl("key", "list")["keys"]) >= 40
    home.kill()


def test_a_home_loses_its_rows_and_comes_back_as_a_newcomer(cluster, tmp_path):
    s3 = cluster.s3(0)
    s3.create_bucket(Bucket="kept")
    bodies = {f"k{i:03}": noise((100, 60_000, 1_300_000)[i % 3], ("kept", i)) for i in range(60)}
    for key, body in bodies.items():
        s3.put_object(Bucket="kept", Key=key, Body=body)
    cluster.wait_quiet()
    lost = cluster.homes[2]
    lost.kill()
    lost.start()  # rows go from the log to tables
    cluster.wait_whole()
    lost.kill()
    # The tables of rows, damaged in their middles: the node starts, and meets the damage when it reads.
    tables = sorted((lost.dir / "rows").glob("*.sst"), key=lambda p: p.stat().st_size)[-2:]
    for t in tables:
        flip(t, 0.05, 0.7, 97)
    lost.start(wait=False)
    until("it serves, or has refused", lambda: lost.process.poll() is not None or "is ready" in lost.log.read_text().rsplit("settled", 1)[-1] or lost.status(), 15)
    assert lost.alive(), lost.tail(3)

    def noticed():
        for i, (key, body) in enumerate(bodies.items()):
            assert sha(cluster.s3(2).get_object(Bucket="kept", Key=key)["Body"].read()) == sha(body), "never wrong bytes"
        return [h.status()["health"] for h in (lost, cluster.homes[0])] == ["damaged", "damaged"]

    until("both it and the others say that it is damaged", noticed, 30)
    text = subprocess.run([STORAGECTL, "--data-dir", str(lost.dir), "status"], capture_output=True, text=True, check=True).stdout
    assert "The row store of home-nice is damaged" in text and "WHEN ROWS ARE LOST" in text
    assert "error" in lost.log.read_text() and all(w in lost.log.read_text() for w in RECIPE)

    # The recipe of storaged(8).
    old = next(n["id"] for n in lost.status()["nodes"] if n["self"])
    lost.kill()
    shutil.move(lost.dir, tmp_path / "moved-away")
    first = cluster.homes[0]
    refused = subprocess.run([STORAGECTL, "--data-dir", str(first.dir), "layout", "remove", "home-nowhere"], capture_output=True, text=True, check=False)
    assert refused.returncode == 4 and "home-nice" in refused.stderr and len(refused.stderr.splitlines()) == 1, refused.stderr
    refused = subprocess.run([STORAGECTL, "--data-dir", str(first.dir), "layout", "remove", "home-paris"], capture_output=True, text=True, check=False)
    assert refused.returncode == 5 and "is up" in refused.stderr, refused.stderr
    until("its absence is known", lambda: not next(n for n in first.status()["nodes"] if n["id"] == old)["up"], 15)
    lost.start(first.ctl("invite")["invite"])
    until("the change ends", lambda: first.status()["layout"]["phase"] == "settled" and len(first.status()["nodes"]) == 4, 60)
    assert subprocess.run([STORAGECTL, "--data-dir", str(first.dir), "layout", "remove", old[:8], "--yes"], capture_output=True, text=True, check=False).returncode == 0
    start = time.monotonic()
    until("three members, settled", lambda: [len(n := h.status()["nodes"]) == 3 and all(x["up"] for x in n) and h.status()["layout"]["phase"] == "settled" for h in cluster.homes] == [True] * 3, 90)
    cluster.wait_quiet(90)
    names = {p.name for p in cluster.homes[0].blocks()}
    until("the newcomer holds every block", lambda: {p.name for p in lost.blocks()} >= names, 120)
    print(f"refilled {time.monotonic() - start:.1f} s after the old one was removed")
    until("all is well", lambda: first.status()["health"] == "healthy", 60)
    # With another home dark, what is read comes from the newcomer too.
    cluster.homes[1].kill()
    for key, body in bodies.items():
        assert sha(cluster.s3(2, timeout=20).get_object(Bucket="kept", Key=key)["Body"].read()) == sha(body)
    cluster.homes[1].start()
    cluster.wait_whole()
    # The data directory that was moved away does not come back as what it was.
    again = Home(tmp_path, "again")
    again.dir = tmp_path / "moved-away"
    again.start(wait=False)
    time.sleep(3)
    assert len(first.status()["nodes"]) == 3
    until("all is well", lambda: first.status()["health"] == "healthy", 60)
    again.kill()
