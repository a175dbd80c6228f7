"""Wrong settings, wrong places and damage: a clear sentence, the right exit code, and nothing lost."""
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time

import botocore.exceptions
import pytest

from conftest import STORAGECTL, STORAGED, TOOL_PATH, Cluster, Home, noise, sha, until
from rows import set_row


def run(*args, env=None, seconds=20, before=()):
    done = subprocess.run([*before, *map(str, args)], capture_output=True, text=True, timeout=seconds, check=False, env={"PATH": TOOL_PATH, "HOME": "/nonexistent"} | (env or {}))
    done.words = done.stdout + done.stderr
    return done


def storaged(*args, **more):
    return run(STORAGED, *args, **more)


@pytest.fixture
def home(tmp_path):
    h = Home(tmp_path, "home-lyon")
    yield h
    if h.alive():
        h.process.send_signal(signal.SIGCONT)
        h.kill()


def ports(h):
    return ("--s3-listen", h.s3, "--web-listen", h.web, "--rpc-listen", h.rpc, "--admin-listen", h.admin)


def refused(done, code, *words):
    assert done.returncode == code, done.words
    for w in words:
        assert w in done.words, f"'{w}' is not in: {done.words}"
    assert len(done.stderr.strip().splitlines()) <= 4, "one clear sentence, not a dump"


# ---- options, variables, the file

@pytest.mark.parametrize("args, words", [
    (("--zoen", "home-lyon"), ("--zoen", "--zone")), (("--zone", "home-lyon", "--capactiy", "5G"), ("--capacity",)), (("--zone",), ("needs a value",)),
    (("--zone", "Home Lyon"), ("a-z",)), (("--zone", "home-lyon", "--capacity", "lots"), ("lots",)), (("--zone", "home-lyon", "--s3-listen", "nowhere"), ("nowhere", "port")),
    (("--zone", "home-lyon", "--upload-limit", "fast"), ("fast",)), (("--zone", "home-lyon", "--zone", "home-paris"), ("twice",)), (("stray",), ("stray",)),
    (("--zone", "home-lyon", "--log-level", "loud"), ("loud", "debug"))])
def test_wrong_options(args, words, tmp_path):
    refused(storaged("--data-dir", tmp_path / "d", *args), 2, *words)
    assert not (tmp_path / "d").exists(), "nothing is made for a wrong command line"


def test_wrong_settings_in_the_file(tmp_path):
    file = tmp_path / "storaged.toml"
    for content, words in (('zone = "home-lyon"\ncapacty = "5G"\n', ("capacty", "capacity", str(file))), ('zone = \n', (f"{file}:",)), ('zone = "home-lyon"\ns3_listen = [1]\n', ("s3_listen",)),
                           ('zone = "home-lyon"\ncapacity = "many"\n', ("many",)), ("zone = 5\n", (f"{file}:1: zone", "expected a string", "a whole number")),
                           ('zone = "home-lyon"\ndrive = ["second:1T"]\n', (f"{file}:2: drive", "'second'", "whole path")),
                           ('zone = "home-lyon"\nrender_cpus = 0\n', (f"{file}:2: render_cpus", "'0'", "1 to 64")),
                           ('zone = "home-lyon"\nrender_cpus = "all"\n', (f"{file}:2: render_cpus", "'all'", "whole number")),
                           ('zone = "home-lyon"\nrender_memory = "1MiB"\n', (f"{file}:2: render_memory", "32MiB")),
                           ('zone = "home-lyon"\nrender_picture_memory = "2G"\n', (f"{file}:2: render_picture_memory", "560MiB")),
                           ('zone = "home-lyon"\nweb_staleness = "soon"\n', (f"{file}:2: web_staleness", "'soon'", "seconds")),
                           ('zone = "home-lyon"\nweb_cache = [1]\n', (f"{file}:2: web_cache", "a list")),
                           ('zone = "home-lyon\ncapacity = "5G"\n', (f"{file}:1:", "has no end"))):
        file.write_text(content)
        refused(storaged("--data-dir", tmp_path / "d", "--config", file), 2, *words)
    refused(storaged("--config", tmp_path / "none.toml"), 2, "none.toml")
    refused(storaged("--zone", "home-lyon", "--data-dir", tmp_path / "d", env={"STORAGED_CAPACITY": "heaps"}), 2, "STORAGED_CAPACITY", "heaps")


def test_a_drive_under_two_names(home, tmp_path):
    drive = tmp_path / "drive"
    drive.mkdir()
    (tmp_path / "link").symlink_to(drive)
    start = ("--zone", "home-lyon", "--data-dir", home.dir, *ports(home))
    for other in (f"{drive}/", tmp_path / "." / "link", f"{tmp_path}/x/../drive"):
        (tmp_path / "x").mkdir(exist_ok=True)
        refused(storaged(*start, "--drive", f"{drive}:1G", "--drive", f"{other}:1G"), 2, "two names")
    refused(storaged(*start, "--drive", f"{home.dir}/blocks:1G"), 2, "keeps its blocks anyway")
    # Of another home: whoever holds the directory's lock has it.
    import fcntl
    import os
    held = os.open(drive, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(held, fcntl.LOCK_EX)
    try:
        refused(storaged(*start, "--drive", f"{drive}:1G"), 1, "in use by another storaged")
    finally:
        os.close(held)


def test_no_zone(home):
    refused(storaged("--data-dir", home.dir, *ports(home)), 2, "--zone home-lyon")
    assert not (home.dir / "rows").exists(), "nothing is made for it"


def test_zone_from_file_and_started_again_without(home, tmp_path):
    file = tmp_path / "storaged.toml"
    file.write_text(f'zone = "home-file"\ndata_dir = "{home.dir}"\ncapacity = "3G"\ns3_listen = "{home.s3}"\nweb_listen = "{home.web}"\nrpc_listen = "{home.rpc}"\nadmin_listen = "{home.admin}"\n')
    for args in (["--config", str(file)], ["--data-dir", str(home.dir), *ports(home)]):
        with open(home.log, "ab") as log:
            home.process = subprocess.Popen([STORAGED, *args], stdout=log, stderr=log)
        home.wait_ready()
        node = home.status()["nodes"][0]
        assert node["zone"] == "home-file" and node["capacity"] == 3_000_000_000
        home.stop()


# ---- places

@pytest.mark.parametrize("which", ["s3", "web", "rpc", "admin"])
def test_port_taken(home, which):
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        host, port = getattr(home, which).split(":")
        s.bind((host, int(port)))
        s.listen()
        refused(storaged("--zone", "home-lyon", "--data-dir", home.dir, *ports(home)), 1, port, f"--{which}-listen")


def test_directory_not_writable(home, tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o755)
    before = ()
    if os.geteuid() == 0:
        for p in (tmp_path, *tmp_path.parents):
            if p.stat().st_mode & 0o001 == 0 and str(p).startswith("/tmp/"):
                p.chmod(p.stat().st_mode | 0o011)
        before = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
        if subprocess.run([*before, "test", "-x", STORAGED], check=False).returncode:
            shutil.copy(STORAGED, tmp_path / "storaged")
            program = tmp_path / "storaged"
        else:
            program = STORAGED
    else:
        locked.chmod(0o555)
        program = STORAGED
    refused(run(program, "--zone", "home-lyon", "--data-dir", locked, *ports(home), before=before), 1, "not writable", "--data-dir")
    refused(run(program, "--zone", "home-lyon", "--data-dir", locked / "below", *ports(home), before=before), 1, "cannot make the data directory", "--data-dir")
    (tmp_path / "file").write_text("")
    refused(storaged("--zone", "home-lyon", "--data-dir", tmp_path / "file", *ports(home)), 1, str(tmp_path / "file"), "--data-dir")
    refused(storaged("--zone", "home-lyon", "--data-dir", tmp_path / "file" / "below", *ports(home)), 1, "Not a directory", "--data-dir")
    fixed = tmp_path / "fixed"
    fixed.mkdir()
    if os.geteuid() == 0 and not subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,size=1m", "tmpfs", str(fixed)], capture_output=True, check=False).returncode:
        try:
            refused(storaged("--zone", "home-lyon", "--data-dir", fixed, *ports(home)), 1, "not writable", "Read-only", "--data-dir")
        finally:
            subprocess.run(["umount", str(fixed)], check=False)


def test_directory_in_use(home):
    home.start()
    other = Home(home.dir.parent, "other")
    refused(storaged("--zone", "home-lyon", "--data-dir", home.dir, *ports(other)), 1, "in use by another storaged")
    assert home.status()["copies"] == 1, "the first one goes on"


# ---- invites

def test_invites(home, tmp_path):
    """Truncated, altered, forged, expired, used twice: each time a sentence that says which, and the good one works afterwards."""
    home.start()

    def joins(line, name):
        new = Home(tmp_path, name)
        done = storaged("--zone", name, "--data-dir", new.dir, "--capacity", "5G", *ports(new), "--join", line, seconds=60)
        done.dir = new.dir
        return done

    good = home.ctl("invite")["invite"]
    altered = good[:60] + ("0" if good[60] != "0" else "1") + good[61:]
    for line in ("rubbish", good[:-20], good[:-1], altered, good + "00", good[:40] + " " + good[40:], "grenier1.", good[:9]):
        done = joins(line, "home-a")
        refused(done, 2, "--join", "invite", "storagectl invite")
        assert not done.dir.exists(), "nothing is made for half an invite"
    # Whole, but with another secret.
    head, _, rest = good.partition(".")
    body = json.loads(bytes.fromhex(rest)[:-4])
    body["s"] = "00" * 32
    body = json.dumps(body).encode()
    refused(joins(f"{head}." + (body + hashlib.sha256(body).digest()[:4]).hex(), "home-b"), 1, "invite was refused", "storagectl invite")
    expired = home.control("/invite", valid_seconds=1)["invite"]
    time.sleep(1.5)
    refused(joins(expired, "home-c"), 1, "expired", "seconds ago", "storagectl invite")
    assert len(home.status()["nodes"]) == 1
    second = Home(tmp_path, "home-paris")
    try:
        second.start(good)
        refused(joins(good, "home-d"), 1, "used already", "one home", "storagectl invite")
        assert len(home.status()["nodes"]) == 2
        second.restart()
        assert second.process.poll() is None
        # From standard input.
        third = Home(tmp_path, "home-nice")
        with open(third.log, "ab") as log:
            third.process = subprocess.Popen([STORAGED, "--zone", "home-nice", "--data-dir", str(third.dir), "--capacity", "5G", *ports(third), "--join", "-"], stdin=subprocess.PIPE, stdout=log, stderr=log)
        third.process.stdin.write(home.ctl("invite")["invite"].encode() + b"\n")
        third.process.stdin.close()
        Home.started.append(third)
        third.wait_ready()
        until("it has joined", lambda: len(home.status()["nodes"]) == 3 and len(third.status()["nodes"]) == 3, 30)
        third.kill()
    finally:
        if second.alive():
            second.kill()
    home.kill()
    nobody = joins(good, "home-e")
    refused(nobody, 1, "no home of the invite could be reached", home.rpc)


def test_data_of_another_cluster(home, tmp_path):
    """An invite to another cluster never moves data there; one to its own is let pass, as a unit file keeps saying --join."""
    other = Home(tmp_path, "home-paris")
    home.start()
    other.start()
    try:
        invite, own = home.ctl("invite")["invite"], other.ctl("invite")["invite"]
        other.stop()
        clusters = [home.status()["cluster"][:8]]
        done = storaged("--zone", "home-paris", "--data-dir", other.dir, *ports(other), "--join", invite)
        refused(done, 1, "belongs to a home of cluster", *clusters, "--join", "--data-dir")
        assert len(home.status()["nodes"]) == 1
        other.start(own)
        assert "not needed any more" in other.log.read_text()
        # What was read as an invite once, or never was one, is no reason to stay away either.
        for line in ("grenier1.7b2261223a", own[:-20], "rubbish", "-"):
            other.stop()
            other.log.unlink()
            other.start(line)
            assert other.log.read_text().count("--join is ignored") == 1, line
        assert len(other.status()["nodes"]) == 1 and other.status()["cluster"] != home.status()["cluster"]
    finally:
        if other.alive():
            other.kill()


def test_rows_of_a_newer_version(home):
    home.start()
    home.kill()
    assert set_row(home.dir, b"format", lambda v: bytes([v[0], v[1], v[2], v[3] + 1]) if v[3] else bytes([v[0] + 1, *v[1:]]))
    refused(storaged("--data-dir", home.dir, *ports(home)), 1, "newer version", str(home.dir))


# ---- a full disk

def test_full_disk(tmp_path):
    """Homes on small file systems of their own: full, they refuse writes and go on reading; with room again they take them."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160m", "tmpfs", str(small)], capture_output=True, check=False).returncode:
        pytest.skip("no tmpfs can be mounted here")
    cluster = Cluster(small, zones=("home-lyon",))
    try:
        cluster.homes[0].log = tmp_path / "log"
        cluster.start()
        s3 = cluster.s3(0)
        s3.create_bucket(Bucket="full")
        stored, refusal = {}, None
        for i in range(200):
            body = noise(2_000_000, ("full", i))
            try:
                s3.put_object(Bucket="full", Key=f"k{i}", Body=body)
                stored[f"k{i}"] = sha(body)
            except botocore.exceptions.ClientError as e:
                refusal = e.response
                break
        assert refusal, "a full disk took everything"
        assert refusal["ResponseMetadata"]["HTTPStatusCode"] == 507 and refusal["Error"]["Code"] == "InsufficientStorage", refusal
        assert len(stored) > 5
        for key, s in stored.items():
            assert sha(s3.get_object(Bucket="full", Key=key)["Body"].read()) == s
        assert len(s3.list_objects_v2(Bucket="full")["Contents"]) == len(stored)
        home = cluster.homes[0]
        assert home.alive() and home.status()["nodes"][0]["up"]
        home.restart()
        for key, s in list(stored.items())[:3]:
            assert sha(s3.get_object(Bucket="full", Key=key)["Body"].read()) == s
        subprocess.run(["mount", "-o", "remount,size=400m", str(small)], check=True)

        def again():
            s3.put_object(Bucket="full", Key="again", Body=noise(2_000_000, "again"))
            return True

        until("with room again, writes are taken", again, 30)
    finally:
        cluster.stop()
        subprocess.run(["umount", str(small)], check=False)


# ---- storagectl

def test_storagectl_exit_codes(home, tmp_path):
    def ctl(*args, dir=home.dir):
        return run(STORAGECTL, "--data-dir", dir, *args)

    assert ctl("status").returncode == 3 and "storaged" in ctl("status").stderr
    home.start()
    assert ctl("status").returncode == 0
    wrong = ctl("statsu")
    assert wrong.returncode == 2 and "status" in wrong.stderr
    assert ctl("key", "create").returncode == 2
    wrong = ctl("bucket", "website", "x", "--indx", "i.html")
    assert wrong.returncode == 2 and "--index" in wrong.stderr
    assert ctl("bucket", "info", "no-such-bucket").returncode == 4
    assert ctl("key", "delete", "GRNONE").returncode == 4
    assert ctl("bucket", "create", "taken").returncode == 0
    assert ctl("bucket", "create", "taken").returncode == 1
    refused(ctl("bucket", "create", "taken"), 1, "'taken'")
    refused(ctl("bucket", "info", "no-such-bucket"), 4, "'no-such-bucket'")
    refused(ctl("key", "delete", "GRNONE"), 4, "'GRNONE'")
    refused(ctl("bucket", "create", "X"), 2, "'X'")
    refused(ctl("bucket", "website", "taken"), 2, "--index", "--off", "'taken'")
    refused(ctl("bucket", "website", "taken", "--index", "i.html", "--off"), 2, "--index", "--off")
    refused(ctl("stat"), 2, "Did you mean status")
    refused(ctl("bucket", "alow", "taken"), 2, "Did you mean allow")
    refused(ctl("status", "--jsno"), 2, "Did you mean --json")
    for hours in ("0", "721", "-1", "1.5", "day"):
        refused(ctl("invite", "--valid", hours), 2, "1 to 720", hours)
    for hours in ("1", "720"):
        assert ctl("invite", "--valid", hours).returncode == 0
    made = ctl("key", "create", "import", "--id", "GKabc123", "--secret", "s" * 40, "--json")
    assert made.returncode == 0 and '"access_key_id": "GKabc123"' in made.stdout and '"secret_access_key"' in made.stdout
    assert "sss" not in ctl("key", "list").stdout, "a secret is shown once"
    assert ctl("bucket", "allow", "taken", "--key", "GKabc123", "--read").returncode == 0
    refused(ctl("bucket", "allow", "taken", "--key", "GKabc123"), 2, "--read", "--write", "--owner", "'taken'")
    refused(ctl("bucket", "allow", "taken", "--key", "GKnone", "--read"), 4, "'taken'", "'GKnone'")
    refused(ctl("bucket", "allow", "none", "--key", "GKabc123", "--read"), 4, "'none'")
    # A secret that is not on the command line.
    secret = "t" * 40
    done = subprocess.run([STORAGECTL, "--data-dir", str(home.dir), "--json", "key", "create", "quiet", "--id", "GKquiet", "--secret", "-"], input=secret + "\n", capture_output=True, text=True, check=False)
    assert done.returncode == 0 and json.loads(done.stdout)["secret_access_key"] == secret, done.stderr
    done = subprocess.run([STORAGECTL, "--data-dir", str(home.dir), "key", "create", "quiet", "--id", "GKquiet2", "--secret", "-"], input="", capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "standard input" in done.stderr, done.stderr
    assert ctl("bucket", "delete", "taken").returncode == 0
