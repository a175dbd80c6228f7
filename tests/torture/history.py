"""What clients may see: the state of keys as far as their writers know it, and the checks of a whole history.

A write is acknowledged, refused, or of unknown outcome (an error 5xx, a timeout, a connection that broke). Each key has one writer, which
sends one request at a time: what a read of the key may answer is then the last acknowledged value, or one of unknown outcome that was begun
since. A value of unknown outcome that never showed up stays possible until an acknowledged write that began LATE seconds after it failed:
attempts end with their deadline, and a newer write has a newer ballot."""
import hashlib

LATE = 120.0
ABSENT = None


def sha(data):
    return hashlib.sha256(data).hexdigest()


def noise(size, seed):
    """Bytes that do not compress, the same for the same seed."""
    return hashlib.shake_128(str(seed).encode()).digest(size)


class Key:
    """One key as its writer knows it. Values are (sha256, size), or ABSENT."""

    def __init__(self):
        self.sure = ABSENT
        self.maybe = []  # (value, when its request failed)

    def acknowledged(self, value, began):
        self.sure = value
        self.maybe = [(v, t) for v, t in self.maybe if t + LATE > began]

    def unknown(self, value, when):
        self.maybe.append((value, when))

    def allowed(self):
        return {self.sure, *(v for v, _ in self.maybe)}

    def certain(self):
        return not self.maybe

    def observed(self, value):
        """A read answered this value: from here on older ones are gone. False if it may not be."""
        if value == self.sure:
            return True
        for i, (v, _) in enumerate(self.maybe):
            if v == value:
                del self.maybe[i]
                self.sure = value
                return True
        return False


def replay(records):
    """The state of every key with one writer at the end of a history."""
    keys = {}
    for r in records:
        if r["op"] not in ("put", "delete", "copy", "multipart", "get"):
            continue
        key = keys.setdefault(r["key"], Key())
        value = tuple(r["value"]) if r["value"] is not None else ABSENT
        if r["op"] == "get":
            if r["outcome"] == "yes" and r.get("fresh", True):
                key.observed(value)
        elif r["outcome"] == "yes":
            key.acknowledged(value, r["began"])
        elif r["outcome"] == "unknown":
            key.unknown(value, r["ended"])
    return keys


def check_chain(name, records, final):
    """A key that many writers change by compare-and-swap only. Every value names the one that it replaced. True swaps make one chain: no
    value has two acknowledged successors, and every acknowledged one is on the way from the final value back to the beginning. Reads never
    go back in time. Returns sentences about what does not hold."""
    faults = []
    before = {r["id"]: r["prev"] for r in records if r["op"] == "swap" and r["outcome"] != "no"}
    done = [r for r in records if r["op"] == "swap" and r["outcome"] == "yes"]
    successor = {}
    for r in done:
        if r["prev"] in successor:
            faults.append(f"{name}: {r['prev']} was replaced twice, by {successor[r['prev']]} and by {r['id']}")
        successor[r["prev"]] = r["id"]
    chain, at = [], final
    while at is not None and len(chain) <= len(before):
        if at not in before:
            faults.append(f"{name}: {at} was never written")
            break
        chain.append(at)
        at = before[at]
    chain.reverse()
    place = {v: i + 1 for i, v in enumerate(chain)} | {None: 0}
    for r in done:
        if r["id"] not in place:
            faults.append(f"{name}: the acknowledged swap to {r['id']} is not in the chain that led to {final}")
    # Real time: what was seen or acknowledged before a request began is its floor.
    events = sorted([(r["ended"], 0, place.get(r["id"]), r["id"]) for r in done] +
                    [(r["ended"], 0, place.get(r["id"]), r["id"]) for r in records if r["op"] == "look" and r["outcome"] == "yes" and r["fresh"]] +
                    [(r["began"], 1, r, None) for r in records if r["op"] == "look" and r["outcome"] == "yes" and r["fresh"]], key=lambda e: e[:2])
    floor, of, floors = 0, None, {}
    for when, kind, what, value in events:
        if kind == 1:
            floors[id(what)] = (floor, of)
        elif what is not None and what > floor:
            floor, of = what, value
    for r in records:
        if id(r) in floors:
            seen = place.get(r["id"])
            if seen is None:
                faults.append(f"{name}: a read saw {r['id']}, which is not in the chain")
            elif seen < floors[id(r)][0]:
                faults.append(f"{name}: a read at home {r['home']} saw {r['id']} ({seen}) after {floors[id(r)][1]} ({floors[id(r)][0]}) was there")
    return faults


def check_claim(name, records, final):
    """A key that many writers create with If-None-Match: *. One of them at most is told that it did, and that one did."""
    won = [r["id"] for r in records if r["outcome"] == "yes"]
    maybe = {r["id"] for r in records if r["outcome"] == "unknown"}
    if len(won) > 1:
        return [f"{name}: created by {len(won)}: {won}"]
    if won and final != won[0]:
        return [f"{name}: created by {won[0]}, holds {final}"]
    if not won and final is not None and final not in maybe:
        return [f"{name}: holds {final}, of which nobody knows"]
    return []
