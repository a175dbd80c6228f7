"""Wrong settings, wrong places and damage: a clear sentence, the right exit code, and nothing lost."""
import os
import shutil
import signal
import socket
import subprocess

import botocore.exceptions
import pytest

from conftest import STORAGECTL, STORAGED, TOOL_PATH, Cluster, Home, noise, sha, until


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
                           ('zone = "home-lyon"\ncapacity = "many"\n', ("many",))):
        file.write_text(content)
        refused(storaged("--data-dir", tmp_path / "d", "--config", file), 2, *words)
    refused(storaged("--config", tmp_path / "none.toml"), 2, "none.toml")
    refused(storaged("--zone", "home-lyon", "--data-dir", tmp_path / "d", env={"STORAGED_CAPACITY": "heaps"}), 2, "STORAGED_CAPACITY", "heaps")


def test_no_zone(home):
    refused(storaged("--data-dir", home.dir, *ports(home)), 1, "--zone home-lyon")


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
    refused(storaged("--zone", "home-lyon", "--data-dir", tmp_path / "file", *ports(home)), 1, str(tmp_path / "file"))


def test_directory_in_use(home):
    home.start()
    other = Home(home.dir.parent, "other")
    refused(storaged("--zone", "home-lyon", "--data-dir", home.dir, *ports(other)), 1, "in use by another storaged")
    assert home.status()["copies"] == 1, "the first one goes on"


# ---- invites

def test_invites(home, tmp_path):
    home.start()
    def joins(line, name):
        new = Home(tmp_path, name)
        return storaged("--zone", name, "--data-dir", new.dir, "--capacity", "5G", *ports(new), "--join", line, seconds=60)

    good = home.ctl("invite")["invite"]
    refused(joins("rubbish", "home-a"), 1, "invite")
    refused(joins(good[:-20], "home-b"), 1, "invite")
    wrong = good[:-6] + ("0" if good[-6] != "0" else "1") + good[-5:]
    refused(joins(wrong, "home-c"), 1, "invite")
    second = Home(tmp_path, "home-paris")
    try:
        second.start(good)
        refused(joins(good, "home-d"), 1, "invite", "used")
        assert len(home.status()["nodes"]) == 2
    finally:
        if second.alive():
            second.kill()


# ---- damage

def test_damaged_rows_are_refused(home):
    home.start()
    home.ctl("key", "create", "something")
    home.kill()
    rows = home.dir / "rows"
    current = (rows / "CURRENT").read_text().strip()
    manifest = rows / current
    data = bytearray(manifest.read_bytes())
    for i in range(20, len(data), 7):
        data[i] ^= 0x5A
    manifest.write_bytes(bytes(data))
    done = storaged("--zone", "home-lyon", "--data-dir", home.dir, *ports(home))
    refused(done, 1, "damaged", "newcomer", "storagectl invite")


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
    assert ctl("bucket", "create", "X").returncode == 1
    assert ctl("bucket", "website", "taken").returncode == 1
    made = ctl("key", "create", "import", "--id", "GKabc123", "--secret", "s" * 40, "--json")
    assert made.returncode == 0 and '"access_key_id": "GKabc123"' in made.stdout and '"secret_access_key"' in made.stdout
    assert "sss" not in ctl("key", "list").stdout, "a secret is shown once"
    assert ctl("bucket", "allow", "taken", "--key", "GKabc123", "--read").returncode == 0
    assert ctl("bucket", "allow", "taken", "--key", "GKabc123").returncode == 1
    assert ctl("bucket", "delete", "taken").returncode == 0
