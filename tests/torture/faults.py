"""The faults: what is planned from the seed, and how each is done to a home and undone.

Two kinds. The passing ones (kill -9, SIGSTOP, cuts, slow lines, new addresses, full disks) may meet each other. Those that destroy data
(blocks deleted or flipped, rows deleted, a home emptied) come one at a time, and only when every queue is empty: copies are three, and what
is destroyed must be one of them. The clients hold their writes for that moment ("lull")."""
import random
import re
import shutil
import signal
import time

from ground import Ended, Refused, until

PASSING = (("kill", 20), ("freeze", 16), ("cut", 8), ("cut-one-way", 8), ("cut-pair", 8), ("unplug", 5), ("slow-line", 6), ("new-address", 6), ("full-disk", 6), ("stop", 4),
           ("kill-two", 4), ("kill-all", 3))
DESTROYING = (("blocks-deleted", 5), ("blocks-flipped", 5), ("rows-damaged", 4), ("emptied", 3))
ALONE = ("kill-two", "kill-all")
DAMAGES = ("table-deleted", "log-deleted", "manifest-flipped", "current-deleted", "log-flipped")
REFUSAL = ("Move this home's data directory away", "storagectl invite", "WHEN ROWS ARE LOST")


def plan(seed, homes, seconds):
    """The whole run's faults, from the seed alone: (pause before, [(kind, home, length, details)]) until the time is over."""
    rng = random.Random(f"plan/{seed}/{homes}")
    steps, at, since, kinds_left = [], 0.0, 0, []
    every = 3 if seconds < 600 else 5
    while at < seconds:
        pause, length = rng.uniform(1, 6), rng.choice((1, 1, 2, 3, 5, 8, 12) if seconds < 600 else (1, 2, 3, 5, 8, 12, 20))
        since += 1
        if since == every:
            since = 0
            if not kinds_left:  # every kind of destruction comes before one comes again
                kinds_left = [k for k, _ in DESTROYING]
                rng.shuffle(kinds_left)
            kind = kinds_left.pop()
            steps.append((pause, [(kind, rng.randrange(homes), 0, rng.choice(DAMAGES))]))
            at += pause + 12
            continue
        kind = rng.choices([k for k, _ in PASSING], [w for _, w in PASSING])[0]
        home = rng.randrange(homes)
        faults = [(kind, home, length, rng.randrange(homes - 1))]
        if rng.random() < 0.2 and kind not in ALONE:
            second = rng.choice([k for k, _ in PASSING if k not in ALONE])
            faults.append((second, (home + 1 + rng.randrange(homes - 1)) % homes, length, rng.randrange(homes - 1)))
        steps.append((pause, faults))
        at += pause + length + 3
    return steps


class Doer:
    """Does the faults of a plan. say(words) reports; wrong(words) is a violation; damaged(home) etc. are counted in `counts`."""

    def __init__(self, ground, seed, say, wrong):
        self.ground, self.rng, self.say, self.wrong = ground, random.Random(f"details/{seed}"), say, wrong
        self.counts, self.skipped, self.away = {}, {}, []
        self.joins_again = 0  # invites that led nowhere
        self.hurried = 0  # how often queues did not empty by themselves soon
        self.times = {}  # how long each way back took
        self.under = []  # (began, ended, home): when something was done to a home

    def other(self, home, offset):
        return self.ground.homes[(home + 1 + offset) % len(self.ground.homes)]

    # Passing ones: begin gives what ends it.
    def begin(self, kind, number, offset):
        home, homes = self.ground.homes[number], self.ground.homes
        if kind in ("kill", "stop", "kill-two", "kill-all"):
            targets = [home] if kind in ("kill", "stop") else homes if kind == "kill-all" else [home, self.other(number, offset)]
            for h in targets:
                if kind != "stop":
                    h.kill()
                elif (code := h.terminate()) != 0:
                    self.wrong(f"{h.zone} ended with {code} after SIGTERM")
            return lambda: self.start(targets)
        if kind == "freeze":
            home.signal(signal.SIGSTOP)
            return lambda: home.signal(signal.SIGCONT)
        if kind in ("cut", "cut-one-way", "cut-pair"):
            peers = [self.other(number, offset)] if kind == "cut-pair" else [h for h in homes if h is not home]
            rules = [self.ground.cut(home, p) for p in peers]
            if kind != "cut-one-way":
                rules += [self.ground.cut(p, home) for p in peers]
            return lambda: [self.ground.mend(r) for r in rules]
        if kind == "unplug":
            home.unplug()
            return home.plug
        if kind == "slow-line":
            home.slow(self.rng.choice(("600kbit", "2mbit", "5mbit")))
            return home.fast
        if kind == "new-address":
            home.move()
            return lambda: None
        if kind == "full-disk":
            home.fill()
            return home.unfill
        raise ValueError(kind)

    def start(self, targets):
        for h in targets:
            h.start(wait=0)
        for h in targets:
            try:
                h.wait_ready(60)
            except Ended as e:
                self.wrong(f"did not come back: {e}")
            except TimeoutError as e:
                self.wrong(f"{h.zone} does not serve a minute after its start: {e}")

    def begin_one(self, ends, kind, number, offset):
        if kind in ("kill", "stop", "freeze") and not self.ground.homes[number].alive():
            return
        ends.append(self.begin(kind, number, offset))
        self.counts[kind] = self.counts.get(kind, 0) + 1

    def passing(self, faults):
        ends, began = [], time.monotonic()
        try:
            for kind, number, _, offset in faults:
                self.begin_one(ends, kind, number, offset)
            time.sleep(faults[0][2])
        finally:
            for end in reversed(ends):
                end()
        everybody = range(len(self.ground.homes))
        for kind, number, _, offset in faults:
            touched = everybody if kind == "kill-all" else [number, (number + 1 + offset) % len(everybody)] if kind in ("kill-two", "cut-pair") else [number]
            self.under += [(began, time.monotonic(), n) for n in touched]

    # Destroying ones.
    def lull(self, on):
        flag = self.ground.work / "lull"
        if on:
            flag.touch()
            workers = lambda: len(list(self.ground.work.glob("resting-*"))) >= self.ground.clients  # noqa: E731
            until("the clients rest", workers, 60)
        else:
            flag.unlink(missing_ok=True)

    def destroying(self, kind, number, damage, patience=150):
        home = self.ground.homes[number]
        began = time.monotonic()
        try:
            self.lull(True)
            self.ground.wait_whole(patience)
            self.hurried += self.ground.wait_quiet(patience, unfinished=True, hurry_after=15)[1]
        except TimeoutError as e:
            self.skipped[kind] = self.skipped.get(kind, 0) + 1
            self.wrong(f"nothing was done to anybody for {time.monotonic() - began:.0f} s, and {e}")
            self.lull(False)
            return
        for h in self.ground.homes:
            for old in h.room.glob("damaged-*"):  # all is there again: what storaged(8) says
                shutil.rmtree(old)
        quiet = time.monotonic()
        self.counts[kind] = self.counts.get(kind, 0) + 1
        try:
            if kind.startswith("blocks"):
                self.blocks(home, kind)
            else:
                self.rows(home, kind, damage)
        except (TimeoutError, Refused, Ended, OSError, StopIteration) as e:
            self.wrong(f"{kind} at {home.zone}: {e!r}")
        finally:
            self.lull(False)
        self.times.setdefault(kind, []).append(round(time.monotonic() - quiet, 1))
        self.under.append((quiet, time.monotonic(), number))

    def blocks(self, home, kind):
        files = home.blocks()
        chosen = self.rng.sample(files, min(len(files), max(5, len(files) // 3)))
        done = {}
        for path in chosen:
            try:
                data = bytearray(path.read_bytes())
                if kind == "blocks-deleted":
                    path.unlink()
                else:
                    data[self.rng.randrange(len(data))] ^= 1 << self.rng.randrange(8)
                    with open(path, "r+b") as f:
                        f.write(data)
                done[path] = None
            except FileNotFoundError:
                continue  # its time had come
        self.counts[f"{kind} (files)"] = self.counts.get(f"{kind} (files)", 0) + len(done)
        if self.rng.random() < 0.5:
            home.kill()
            self.start([home])
        self.lull(False)
        home.ctl("repair")
        # What still belongs there is back; clients read and write meanwhile.
        def back():
            missing = [p for p in done if not p.exists()] if kind == "blocks-deleted" else []
            if missing:
                # Of objects that clients replaced since, blocks need not come back: the others would have them, too.
                held = {p.name for h in self.ground.homes if h is not home for p in h.blocks()}
                missing = [p for p in missing if p.name in held]
            return not any(self.ground.queues().values()) and (not missing or self.rest_is_garbage(home, missing))

        if kind == "blocks-deleted":
            try:
                until(f"the blocks deleted at {home.zone} are back", back, 90, 2)
            except TimeoutError as e:
                self.say(f"  {e}")
        else:
            time.sleep(5)

    @staticmethod
    def rest_is_garbage(home, missing):
        """Whether no more is missing than is waiting for its end elsewhere."""
        return len(missing) <= home.status()["queues"]["garbage"] + 50

    def rows(self, home, kind, damage):
        old = next(n["id"] for n in home.status()["nodes"] if n["self"])
        home.kill()
        if kind == "rows-damaged":
            self.damage(home, damage)
            before = len(home.tail(100000))
            home.start(wait=0)
            home.wanted = False
            try:
                code = home.process.wait(25)
            except Exception:  # noqa: BLE001 - it runs
                code = None
                home.kill()
            words = home.log.read_text(errors="replace")[before:]
            if code != 1 or not all(w in words for w in REFUSAL):
                self.wrong(f"{damage}: {home.zone} started, or did not say what to do ({code}): {words[-600:]}")
            home.dir.rename(home.room / f"damaged-{home.starts}")
        else:
            shutil.rmtree(home.dir)
        self.lull(False)
        first = next(h for h in self.ground.homes if h is not home)
        until("its absence is known", lambda: not next(n for n in first.status()["nodes"] if n["id"] == old)["up"], 40)
        # An invite may name an address that its home had a minute ago: another one is asked for.
        def joined():
            return home.start(join=first.ctl("invite")["invite"])

        for again in range(12):
            try:
                joined()
                break
            except (Ended, Refused):
                self.joins_again += 1
                if again == 11:
                    raise
                time.sleep(10)
        def removed():
            if all(n["id"] != old for n in first.status()["nodes"]):
                return True
            try:
                first.ctl("layout", "remove", old[:8], "--yes")
            except Refused as e:
                if e.code != 5:  # 5: not now, something else is changing
                    raise
            return False

        until(f"the lost home of {home.zone} is removed", removed, 120, 1)
        self.ground.wait_whole(150)

    def damage(self, home, damage):
        rows = home.dir / "rows"
        logs, tables = sorted(rows.glob("*.log"), key=lambda p: p.stat().st_size), sorted(rows.glob("*.sst"), key=lambda p: p.stat().st_size)
        kind = damage
        if kind == "table-deleted" and not tables or kind == "log-flipped" and (not logs or logs[-1].stat().st_size < 200_000):
            kind = "current-deleted"
        self.counts[f"rows: {kind}"] = self.counts.get(f"rows: {kind}", 0) + 1
        if kind == "table-deleted":
            tables[-1].unlink()
        elif kind == "log-deleted":
            for p in logs:
                p.unlink()
        elif kind == "current-deleted":
            (rows / "CURRENT").unlink()
        else:
            path = logs[-1] if kind == "log-flipped" else rows / (rows / "CURRENT").read_text().strip()
            data = bytearray(path.read_bytes())
            begin = int(len(data) * (0.3 if kind == "log-flipped" else 0.1))
            for i in range(begin, int(len(data) * 0.32) if kind == "log-flipped" else len(data), 7):
                data[i] ^= 0x5A
            path.write_bytes(bytes(data))


def secrets_of(invite):
    """What of an invite nobody may print: its long parts."""
    return [w for w in re.split(r"[^A-Za-z0-9_-]+", invite) if len(w) >= 24]
