"""Three real homes on loopback, for tests that drive real clients.

GRENIER_BIN names the directory of storaged and storagectl (default build/bin). Everything started here is ended here, by its own
process object; a failed test prints the end of each home's log."""
import ctypes
import hashlib
import http.client
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import time

import boto3
import botocore.config
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("GRENIER_BIN", ROOT / "build/bin"))
STORAGED = str(BIN / "storaged")
STORAGECTL = str(BIN / "storagectl")
ZONES = ("home-lyon", "home-paris", "home-nice")
# Debian's tools, whatever else stands in the caller's PATH.
TOOL_PATH = "/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"


def sha(data):
    return hashlib.sha256(data).hexdigest()


def noise(size, seed):
    """Bytes that do not compress, the same for the same seed."""
    return hashlib.shake_128(str(seed).encode()).digest(size)


def tree_sums(folder):
    """sha256 of every file below a folder, by its path there."""
    folder = pathlib.Path(folder)
    return {str(p.relative_to(folder)): sha(p.read_bytes()) for p in sorted(folder.rglob("*")) if p.is_file()}


_libc = ctypes.CDLL(None)


def die_with_parent():
    """In a new process: killed when this one ends, however it ends."""
    _libc.prctl(1, signal.SIGKILL)


class Unix(http.client.HTTPConnection):
    """The control socket of a home, as storagectl speaks to it."""

    def __init__(self, path):
        super().__init__("local", timeout=30)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(30)
        self.sock.connect(self.path)


_given = set()


def free_port():
    # Below the range that the kernel takes for outgoing connections, so that a home that is down finds its port again.
    while True:
        port = random.randrange(20000, 32000)
        if port in _given:
            continue
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port


def until(what, condition, seconds=30, pause=0.1):
    """Waits for a condition; its last value or error is in the failure's message."""
    end, last = time.monotonic() + seconds, None
    while time.monotonic() < end:
        try:
            last = condition()
            if last:
                return last
        except Exception as e:  # noqa: BLE001 - the condition is asked again until the time is over
            last = repr(e)
        time.sleep(pause)
    raise AssertionError(f"not within {seconds} s: {what}; last seen: {last}")


class Home:
    started = []  # all of this run, so that none outlives it

    def __init__(self, folder, zone, extra=()):
        self.zone, self.extra, self.env = zone, list(extra), {}
        self.dir = folder / zone
        self.log = folder / f"{zone}.log"
        self.s3, self.web, self.rpc, self.admin = (f"127.0.0.1:{free_port()}" for _ in range(4))
        self.url = f"http://{self.s3}"
        self.process = None

    def start(self, join=None, wait=True):
        args = [STORAGED, "--zone", self.zone, "--data-dir", str(self.dir), "--s3-listen", self.s3, "--web-listen", self.web,
                "--rpc-listen", self.rpc, "--admin-listen", self.admin]
        if "--capacity" not in self.extra:
            args += ["--capacity", "5G"]
        args += self.extra + (["--join", join] if join else [])
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=dict(os.environ) | self.env, preexec_fn=die_with_parent)
        Home.started.append(self)
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self, seconds=30):
        import urllib.request

        def ready():
            assert self.process.poll() is None, f"storaged of {self.zone} ended with {self.process.returncode}: {self.tail(5)}"
            return urllib.request.urlopen(f"http://{self.admin}/health", timeout=2).status == 200

        until(f"{self.zone} serves", ready, seconds, 0.05)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.process.terminate()
        return self.process.wait(10)

    def freeze(self):
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)

    def restart(self):
        if self.process.poll() is None:
            self.stop()
        return self.start()

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def rss(self, peak=False):
        """Resident memory in bytes: now, or the highest so far."""
        for line in pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:" if peak else "VmRSS:"):
                return int(line.split()[1]) * 1024
        return 0

    def tail(self, lines=40):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""

    def ctl(self, *args):
        run = subprocess.run([STORAGECTL, "--data-dir", str(self.dir), "--json", *args], capture_output=True, text=True, timeout=60, check=False)
        assert run.returncode == 0, f"storagectl {' '.join(args)} at {self.zone}: {run.returncode} {run.stderr}"
        return json.loads(run.stdout)

    def control(self, path, **body):
        """One command as storagectl gives it, with what its options do not offer."""
        c = Unix(self.dir / "control.sock")
        c.request("POST", path, json.dumps(body))
        answer = c.getresponse()
        assert answer.status == 200, answer.read()
        return json.loads(answer.read())

    def status(self):
        return self.ctl("status")

    def blocks(self):
        """The block files of this home."""
        return [p for p in (self.dir / "blocks").rglob("*") if p.is_file() and p.stat().st_size > 3000]


class Cluster:
    def __init__(self, folder, zones=ZONES):
        self.folder = folder
        self.homes = [Home(folder, z) for z in zones]
        self.key = self.secret = None

    def start(self):
        first = self.homes[0].start()
        for home in self.homes[1:]:
            home.start(first.ctl("invite")["invite"])
        self.wait_whole()
        made = first.ctl("key", "create", "tests")
        self.key, self.secret = made["access_key_id"], made["secret_access_key"]
        return self

    def wait_whole(self, seconds=120):
        """Every home sees all of them up and as many copies as there are homes, three at most."""
        def whole():
            for home in self.homes:
                s = home.status()
                if s["copies"] != min(3, len(self.homes)) or s["layout"]["phase"] != "settled" or sum(n["up"] for n in s["nodes"]) != len(self.homes):
                    return None
            return True

        until("the cluster is whole and settled", whole, seconds)

    def queues(self):
        return {home.zone: home.status()["queues"] for home in self.homes}

    def wait_quiet(self, seconds=60):
        """Nothing is left to bring to any home: resync, hints, guests and partitions to sync are 0 everywhere."""
        def quiet():
            waiting = {z: {k: v for k, v in q.items() if v and k != "garbage"} for z, q in self.queues().items()}
            assert not any(waiting.values()), (waiting, [home.status()["this_node"].get("last_error") for home in self.homes])
            return True

        until("the queues are empty", quiet, seconds, 0.3)

    def s3(self, home=0, retries=0, region="garage", timeout=60, **more):
        config = botocore.config.Config(retries={"max_attempts": retries}, s3={"addressing_style": "path"}, connect_timeout=5, read_timeout=timeout,
                                        max_pool_connections=32, **more)
        return boto3.client("s3", endpoint_url=self.homes[home].url, region_name=region, aws_access_key_id=self.key, aws_secret_access_key=self.secret,
                            config=config)

    def environment(self, home_dir):
        env = {"PATH": TOOL_PATH, "HOME": str(home_dir), "LANG": "C.UTF-8", "TMPDIR": str(home_dir), "AWS_ACCESS_KEY_ID": self.key,
               "AWS_SECRET_ACCESS_KEY": self.secret, "AWS_DEFAULT_REGION": "garage", "AWS_EC2_METADATA_DISABLED": "true", "AWS_MAX_ATTEMPTS": "1"}
        return env

    def stop(self):
        for home in self.homes:
            if home.alive():
                home.process.send_signal(signal.SIGCONT)
                home.kill()


@pytest.fixture(autouse=True, scope="module")
def room(request):
    """What the tests of a file stored goes with them, unless one failed."""
    before = request.session.testsfailed
    yield
    if request.session.testsfailed == before:
        for folder in {h.dir for h in Home.started if not h.alive()}:
            shutil.rmtree(folder, ignore_errors=True)


def pytest_sessionfinish():
    for home in Home.started:
        if home.alive():
            home.process.send_signal(signal.SIGCONT)
            home.kill()


@pytest.hookimpl(tryfirst=True, hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    cluster = item.funcargs.get("cluster") if hasattr(item, "funcargs") else None
    if report.when == "call" and report.failed and cluster is not None:
        for home in cluster.homes:
            report.sections.append((f"the end of {home.zone}'s log", home.tail()))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    c = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        yield c.start()
    finally:
        c.stop()


@pytest.fixture
def tool(cluster, tmp_path):
    """Runs a client with the cluster's key; fails with its words when it fails."""
    def run(*args, code=0, extra=None, stdin=None, cwd=None):
        env = cluster.environment(tmp_path) | (extra or {})
        done = subprocess.run([str(a) for a in args], env=env, input=stdin, capture_output=True, timeout=180, check=False, cwd=cwd or tmp_path)
        out = done.stdout.decode(errors="replace")
        assert code is None or done.returncode == code, f"{' '.join(map(str, args))}: {done.returncode}\n{out}\n{done.stderr.decode(errors='replace')}"
        run.code, run.err = done.returncode, done.stderr.decode(errors="replace")
        return out

    return run


def pytest_configure(config):
    for program in (STORAGED, STORAGECTL):
        if not os.access(program, os.X_OK):
            pytest.exit(f"{program} is not there: run scripts/build, or set GRENIER_BIN", 2)
