"""The ground on which real homes are tortured: each in a network namespace and on a file system of its own.

Everything here lives in a private network and mount namespace that torture.py made for itself: when it ends, however it ends, links,
addresses and mounts are gone. The test itself stands in the middle: it is the router between all homes, and the clients' place.

  home i:  10.77.i.2 (later .3, .4, ...: addresses change) -- vi, router -- the other homes

What the router drops (`ip rule ... blackhole`) vanishes without a word, in one direction or both, as behind a firewall."""
import ctypes
import http.client
import json
import os
import pathlib
import shutil
import signal
import subprocess
import time
import urllib.request

MiB = 1 << 20
ZONES = ("home-lyon", "home-paris", "home-nice", "home-brest", "home-metz")
S3, RPC, WEB, ADMIN = 3900, 3901, 3902, 3903
_libc = ctypes.CDLL(None)


def die_with_parent():
    """In a new process: killed when this one ends, however it ends."""
    _libc.prctl(1, signal.SIGKILL)


def sh(*args, ok=(0,)):
    done = subprocess.run([str(a) for a in args], capture_output=True, text=True, check=False)
    if ok is not None and done.returncode not in ok:
        raise RuntimeError(f"{' '.join(map(str, args))}: {done.returncode} {done.stderr.strip()}")
    return done.stdout


class Refused(Exception):
    """A command that storagectl or storaged answered with no."""

    def __init__(self, code, words):
        super().__init__(f"{code}: {words}")
        self.code, self.words = code, words


class Ended(Exception):
    """A home's process ended by itself."""


def until(what, condition, seconds, pause=0.2):
    end, last = time.monotonic() + seconds, None
    while True:
        try:
            last = condition()
            if last:
                return last
        except Ended:
            raise
        except Exception as e:  # noqa: BLE001 - asked again until the time is over
            last = repr(e)
        if time.monotonic() >= end:
            raise TimeoutError(f"not within {seconds} s: {what}; last seen: {last}")
        time.sleep(pause)


class Home:
    def __init__(self, ground, number, zone):
        self.ground, self.number, self.zone = ground, number, zone
        self.room = ground.work / zone  # its file system is mounted here
        self.dir = self.room / "data"
        self.log, self.out = ground.work / f"{zone}.log", ground.work / f"{zone}.out"
        self.host, self.process, self.starts, self.peak = 2, None, 0, 0
        self.wanted = False  # whether it should be running: an end that nobody asked for is a fault of ours
        self.invites = []

    @property
    def address(self):
        return f"10.77.{self.number}.{self.host}"

    @property
    def namespace(self):
        return f"h{self.number}"

    def start(self, join=None, wait=45):
        args = ["ip", "netns", "exec", self.namespace, str(self.ground.bin / "storaged"), "--zone", self.zone, "--data-dir", str(self.dir), "--capacity", "3G",
                "--s3-listen", f":{S3}", "--rpc-listen", f":{RPC}", "--web-listen", f":{WEB}", "--admin-listen", f"0.0.0.0:{ADMIN}"]
        if join:
            self.invites.append(join)
            args += ["--join", join]
        with open(self.log, "ab") as log, open(self.out, "ab") as out:
            self.process = subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=out, stderr=log, preexec_fn=die_with_parent)
        self.starts += 1
        self.wanted = True
        if wait:
            self.wait_ready(wait)
        return self

    def wait_ready(self, seconds=45):
        def ready():
            if self.process.poll() is not None:
                self.wanted = False
                raise Ended(f"{self.zone} ended with {self.process.returncode}: {self.tail(3)}")
            return urllib.request.urlopen(f"http://{self.address}:{ADMIN}/health", timeout=2).status == 200

        until(f"{self.zone} serves", ready, seconds, 0.05)

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def kill(self):
        self.wanted = False
        self.note_peak()
        self.process.kill()
        self.process.wait()

    def terminate(self, seconds=15):
        self.wanted = False
        self.note_peak()
        self.process.terminate()
        return self.process.wait(seconds)

    def signal(self, number):
        self.process.send_signal(number)

    def note_peak(self):
        """Resident memory at its highest, over all starts, in bytes."""
        try:
            for line in pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    self.peak = max(self.peak, int(line.split()[1]) * 1024)
        except OSError:
            pass

    def tail(self, lines=40):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""

    def ctl(self, *args, timeout=40):
        run = subprocess.run([str(self.ground.bin / "storagectl"), "--data-dir", str(self.dir), "--json", *args], capture_output=True, text=True, timeout=timeout, check=False)
        if run.returncode:
            raise Refused(run.returncode, f"storagectl {args[0]} at {self.zone}: {run.stderr.strip()}")
        return json.loads(run.stdout)

    def status(self):
        return self.ctl("status", timeout=15)

    def blocks(self):
        return sorted(p for p in (self.dir / "blocks").rglob("*") if p.is_file() and p.stat().st_size > 3000)

    # Its line.
    def counters(self):
        """Bytes that went to it, and that came from it, over its line."""
        base = pathlib.Path(f"/sys/class/net/v{self.number}/statistics")
        lines = sh("ip", "-s", "-j", "link", "show", f"v{self.number}") if not base.exists() else None
        if lines is None:
            return int((base / "tx_bytes").read_text()), int((base / "rx_bytes").read_text())
        stats = json.loads(lines)[0]["stats64"]
        return stats["tx"]["bytes"], stats["rx"]["bytes"]

    def slow(self, rate):
        for tool in (("tc",), ("ip", "netns", "exec", self.namespace, "tc")):
            sh(*tool, "qdisc", "replace", "dev", f"v{self.number}" if tool == ("tc",) else "e", "root", "tbf", "rate", rate, "burst", "32k", "latency", "300ms")

    def fast(self):
        for tool in (("tc",), ("ip", "netns", "exec", self.namespace, "tc")):
            sh(*tool, "qdisc", "del", "dev", f"v{self.number}" if tool == ("tc",) else "e", "root", ok=None)

    def move(self):
        """Another address, as after a night's renewal by the provider; the former one answers no more."""
        old, self.host = self.address, self.host + 1 if self.host < 200 else 2
        # The old one first: a secondary address would go with it.
        sh("ip", "-n", self.namespace, "addr", "del", f"{old}/24", "dev", "e")
        sh("ip", "-n", self.namespace, "addr", "add", f"{self.address}/24", "dev", "e")
        sh("ip", "-n", self.namespace, "route", "replace", "default", "via", f"10.77.{self.number}.1")
        self.ground.publish()

    def unplug(self):
        sh("ip", "link", "set", f"v{self.number}", "down")

    def plug(self):
        sh("ip", "link", "set", f"v{self.number}", "up")

    # Its disk.
    def fill(self):
        """Takes all that is free on its file system, but for some crumbs."""
        filler = self.room / "filler"
        for chunk in (64 * MiB, MiB, 64 * 1024, 4096):
            try:
                with open(filler, "ab", buffering=0) as f:
                    while True:
                        if chunk >= MiB:
                            os.posix_fallocate(f.fileno(), os.fstat(f.fileno()).st_size, chunk)
                        elif f.write(bytes(chunk)) < chunk:
                            break
            except OSError:
                continue

    def unfill(self):
        (self.room / "filler").unlink(missing_ok=True)


class Ground:
    """Namespaces, links and file systems for `count` homes under the folder `work`."""

    def __init__(self, work, programs, count, disk=4 << 30):
        self.work, self.bin, self.disk = pathlib.Path(work), pathlib.Path(programs), disk
        self.homes = [Home(self, i + 1, ZONES[i]) for i in range(count)]
        self.cuts = []
        self.file_systems = None

    def make(self):
        # Names of namespaces are files: here they are only this run's.
        if not os.path.isdir("/run/netns"):
            sh("mount", "-t", "tmpfs", "none", "/run")
            os.mkdir("/run/netns")
        else:
            sh("mount", "-t", "tmpfs", "none", "/run/netns")
        # A namespace of mounts keeps /sys of the network that it was made in; show this one's.
        sh("mount", "-t", "sysfs", "none", "/sys", ok=None)
        sh("ip", "link", "set", "lo", "up")
        pathlib.Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        for h in self.homes:
            n, v = h.namespace, f"v{h.number}"
            sh("ip", "netns", "add", n)
            sh("ip", "link", "add", v, "type", "veth", "peer", "name", "e", "netns", n)
            sh("ip", "addr", "add", f"10.77.{h.number}.1/24", "dev", v)
            sh("ip", "link", "set", v, "up")
            sh("ip", "-n", n, "addr", "add", f"{h.address}/24", "dev", "e")
            sh("ip", "-n", n, "link", "set", "e", "up")
            sh("ip", "-n", n, "link", "set", "lo", "up")
            sh("ip", "-n", n, "route", "add", "default", "via", f"10.77.{h.number}.1")
            self.give_disk(h)
        self.publish()

    def give_disk(self, h):
        h.room.mkdir(parents=True)
        image = self.work / f"{h.zone}.img"
        if os.environ.get("TORTURE_TMPFS") != "1" and self.file_systems in (None, "ext4"):
            try:
                with open(image, "wb") as f:
                    f.truncate(self.disk)
                sh("mkfs.ext4", "-q", "-m", "0", "-E", "lazy_itable_init=1,nodiscard", image)
                sh("mount", "-o", "loop,discard", image, h.room)
                self.file_systems = "ext4"
                return
            except (OSError, RuntimeError):
                image.unlink(missing_ok=True)
        sh("mount", "-t", "tmpfs", "-o", f"size={self.disk},mode=700", "none", h.room)
        self.file_systems = "tmpfs"

    def publish(self):
        """Tells the clients where the homes are."""
        temporary = self.work / "homes.new"
        temporary.write_text(json.dumps([f"http://{h.address}:{S3}" for h in self.homes]))
        temporary.rename(self.work / "homes.json")

    def cut(self, a, b):
        """Drops what goes from home a to home b: one direction."""
        rule = ("from", f"10.77.{a.number}.0/24", "to", f"10.77.{b.number}.0/24", "blackhole")
        sh("ip", "rule", "add", *rule)
        self.cuts.append(rule)
        return rule

    def mend(self, rule):
        if rule in self.cuts:
            self.cuts.remove(rule)
            sh("ip", "rule", "del", *rule)

    def form(self):
        """Every home joined, three copies, settled."""
        first = self.homes[0].start()
        for h in self.homes[1:]:
            h.start(join=first.ctl("invite")["invite"])
        self.wait_whole()

    def whole(self):
        for h in self.homes:
            s = h.status()
            if s["copies"] != min(3, len(self.homes)) or s["layout"]["phase"] != "settled" or len(s["nodes"]) != len(self.homes) or not all(n["up"] for n in s["nodes"]):
                return None
        return True

    def wait_whole(self, seconds=180):
        until("every home sees all of them, settled", self.whole, seconds, 0.5)

    def queues(self):
        return {h.zone: {k: v for k, v in h.status()["queues"].items() if v and k != "garbage"} for h in self.homes}

    def nobody_has(self):
        """What waits is blocks alone that no home has: parts of writes that failed, whose references go some minutes later."""
        waiting = [h.status() for h in self.homes]
        return all(not any(v for k, v in s["queues"].items() if k not in ("garbage", "resync")) and
                   (not s["queues"]["resync"] or "no home that is up has it" in s["this_node"]["last_error"]) for s in waiting)

    def wait_quiet(self, seconds=180, unfinished=False, hurry_after=40):
        """Nothing is left to bring to any home: every queue but garbage, which waits out its time, is 0 everywhere, twice in a row.
        Pauses between attempts have grown while homes were away: after a while repair is asked for, as an administrator would.
        unfinished: blocks that no home has may still be waited for. Returns (seconds, how often repair was asked for)."""
        start, asked = time.monotonic(), [0]

        def quiet():
            if time.monotonic() - start > hurry_after * (asked[0] + 1):
                asked[0] += 1
                for h in self.homes:
                    h.ctl("repair")
            for _ in range(2):
                waiting = self.queues()
                if any(waiting.values()) and not (unfinished and asked[0] and self.nobody_has()):
                    raise AssertionError(waiting, [h.status()["this_node"]["last_error"] for h in self.homes])
            return True

        until("the queues are empty", quiet, seconds, 0.5)
        return time.monotonic() - start, asked[0]

    def close(self):
        for h in self.homes:
            if h.alive():
                h.signal(signal.SIGCONT)
                h.kill()
        for h in self.homes:
            sh("umount", h.room, ok=None)

    def remove(self):
        shutil.rmtree(self.work, ignore_errors=True)


def metrics(home):
    """Every number that the home shows at /metrics."""
    c = http.client.HTTPConnection(home.address, ADMIN, timeout=10)
    c.request("GET", "/metrics")
    values = {}
    for line in c.getresponse().read().decode().splitlines():
        if line and line[0] != "#":
            name, _, value = line.rpartition(" ")
            values[name] = float(value)
    return values


def private_namespaces(arguments):
    """Starts this program again in namespaces of its own, as root or as an ordinary user. Returns once it is there."""
    if os.environ.get("TORTURE_INSIDE") == "1":
        return
    flags = ["-mn"] if os.geteuid() == 0 else ["-Urmn"]
    environment = dict(os.environ, TORTURE_INSIDE="1", PATH="/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin")
    os.execvpe("unshare", ["unshare", *flags, "--propagation", "private", "/usr/bin/python3", *arguments], environment)

