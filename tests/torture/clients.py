"""One client process of the torture: puts, gets, lists, copies, deletes, uploads in parts and swaps, at all homes, for as long as it is
left to; every answer is held against what its history allows, and the history goes to a file, a line a request.

usage: clients.py FOLDER NUMBER SEED BYTES_A_SECOND     (torture.py starts it; keys of access in the environment)"""
import json
import os
import pathlib
import random
import sys
import time

import boto3
import botocore.config
import botocore.exceptions

from history import ABSENT, Key, noise, sha

TIMEOUT = 30
KEYS, HOT, PART = 110, 6, 5 << 20
SIZES = ((0, 3), (900, 25), (5_000, 25), (60_000, 12), (70_000, 14), (300_000, 10), (1_300_000, 5), (3_500_000, 1))
FAILURES = (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError, botocore.exceptions.HTTPClientError, OSError)
BUCKET, SHARED = "torture", "shared"


class Failed(Exception):
    """A request without a good answer: refused (nothing was done), or unknown (it may have been done, or be done yet)."""

    def __init__(self, outcome, code, words):
        super().__init__(words)
        self.outcome, self.code = outcome, code


class Client:
    def __init__(self, folder, number, seed, rate):
        self.folder, self.number, self.rng, self.rate = pathlib.Path(folder), number, random.Random(f"{seed}/{number}"), rate
        self.history = open(self.folder / f"history-{number}.jsonl", "w", buffering=1, encoding="utf-8")
        self.homes, self.read_at, self.connections = [], 0, {}
        self.keys = {f"w{number}/{i // 10}/k{i:03}": Key() for i in range(KEYS)}
        self.bodies = {}  # of values: how to make them again, for ranges
        self.n, self.sent, self.began = 0, 0, time.monotonic()
        self.headers = {}

    # Requests.
    def connection(self, home):
        path = self.folder / "homes.json"
        changed = path.stat().st_mtime_ns
        if changed != self.read_at:
            self.homes, self.read_at = json.loads(path.read_text()), changed
        url = self.homes[home]
        if url not in self.connections:
            config = botocore.config.Config(retries={"max_attempts": 0}, s3={"addressing_style": "path"}, connect_timeout=3, read_timeout=TIMEOUT)
            made = boto3.client("s3", endpoint_url=url, region_name="garage", config=config)
            made.meta.events.register("before-sign.s3", self.add_headers)
            self.connections[url] = made
        return self.connections[url]

    def add_headers(self, request, **_):
        for name, value in self.headers.items():
            request.headers[name] = value

    def call(self, home, operation, headers=None, read=False, **arguments):
        """One request. Returns (answer, body); Failed with what is known of its outcome."""
        self.headers = headers or {}
        try:
            answer = getattr(self.connection(home), operation)(**arguments)
            return answer, answer["Body"].read() if read else b""
        except botocore.exceptions.ClientError as e:
            meta = e.response.get("ResponseMetadata", {})
            status, code = meta.get("HTTPStatusCode", 0), e.response.get("Error", {}).get("Code", "")
            # A copy and the end of an upload may fail behind a 200.
            raise Failed("no" if 400 <= status < 500 else "unknown", code or str(status), str(e)) from e
        except botocore.exceptions.EndpointConnectionError as e:
            raise Failed("no", "NoConnection", str(e)) from e
        except botocore.exceptions.ConnectTimeoutError as e:
            raise Failed("no", "ConnectTimeout", str(e)) from e
        except FAILURES as e:
            raise Failed("unknown", type(e).__name__, str(e)) from e
        finally:
            self.headers = {}

    def record(self, op, key, home, began, outcome, **more):
        ended = time.monotonic()
        self.history.write(json.dumps({"op": op, "key": key, "home": home, "began": began, "ended": ended, "outcome": outcome, "client": self.number} | more) + "\n")
        return ended

    def fault(self, words, **more):
        self.record("fault", more.pop("key", ""), more.pop("home", -1), time.monotonic(), "wrong", words=words, **more)

    def any_home(self):
        self.connection(0)
        return self.rng.randrange(len(self.homes))

    def body(self, size):
        self.n += 1
        seed = f"{self.number}/{self.n}/{self.rng.random()}"
        data = noise(size, seed)
        value = (sha(data), size)
        self.bodies[value] = seed
        self.sent += size
        return data, value

    def size(self):
        return self.rng.choices([s for s, _ in SIZES], [w for _, w in SIZES])[0]

    def write(self, op, key, value, home, attempt):
        """One write of a key of ours; when its outcome is not good, the same is tried at the next homes, as a client with several addresses
        does. attempt(home) makes the request. Returns whether it was acknowledged."""
        state = self.keys[key]
        for again in range(3):
            at = (home + again) % len(self.homes)
            began = time.monotonic()
            try:
                attempt(at)
                self.record(op, key, at, began, "yes", value=value)
                state.acknowledged(value, began)
                return True
            except Failed as e:
                ended = self.record(op, key, at, began, e.outcome, value=value, code=e.code, words=str(e))
                if e.outcome == "unknown":
                    state.unknown(value, ended)
                elif e.code not in ("NoConnection", "ConnectTimeout", "SlowDown", "RequestTimeTooSkewed"):
                    return self.refused(op, key, e, at)
                time.sleep(0.05 + again * 0.3)
        return False

    def refused(self, op, key, e, home):
        if e.code not in ("PreconditionFailed", "NoSuchUpload", "NoSuchKey", "OperationAborted", "ConditionalRequestConflict"):
            self.fault(f"{op} was refused: {e}", key=key, home=home)
        return False

    # What clients do.
    def put(self, key, home):
        data, value = self.body(self.size())
        self.write("put", key, value, home, lambda at: self.call(at, "put_object", Bucket=BUCKET, Key=key, Body=data, Metadata={"sha": value[0]}))

    def put_if_absent(self, key, home):
        state, (data, value) = self.keys[key], self.body(self.size())
        possible, began = state.allowed(), time.monotonic()
        try:
            self.call(home, "put_object", {"If-None-Match": "*"}, Bucket=BUCKET, Key=key, Body=data, Metadata={"sha": value[0]})
            self.record("put", key, home, began, "yes", value=value, condition="absent")
            if ABSENT not in possible:
                self.fault("an object was there, and If-None-Match: * replaced it", key=key, home=home)
            state.acknowledged(value, began)
        except Failed as e:
            ended = self.record("put", key, home, began, e.outcome, value=value, code=e.code, condition="absent", words=str(e))
            if e.outcome == "unknown":
                state.unknown(value, ended)
            elif e.code == "PreconditionFailed" and possible == {ABSENT}:
                self.fault("no object was there, and If-None-Match: * was refused", key=key, home=home)

    def delete(self, key, home):
        self.write("delete", key, ABSENT, home, lambda at: self.call(at, "delete_object", Bucket=BUCKET, Key=key))

    def delete_many(self, key, home):
        # One request for several keys: each has an answer of its own.
        keys = self.rng.sample(sorted(self.keys), 4)
        began = time.monotonic()
        try:
            answer, _ = self.call(home, "delete_objects", Bucket=BUCKET, Delete={"Objects": [{"Key": k} for k in keys]})
            done = {d["Key"] for d in answer.get("Deleted", [])}
        except Failed as e:
            done = set()
            if e.outcome == "no" and e.code not in ("NoConnection", "ConnectTimeout"):
                self.fault(f"delete of several was refused: {e}", home=home)
            if e.outcome == "no":
                return
        for k in keys:
            outcome = "yes" if k in done else "unknown"
            ended = self.record("delete", k, home, began, outcome, value=ABSENT, code="many")
            if outcome == "yes":
                self.keys[k].acknowledged(ABSENT, began)
            else:
                self.keys[k].unknown(ABSENT, ended)

    def copy(self, key, home):
        sources = [k for k, s in self.keys.items() if s.certain() and s.sure and k != key]
        if not sources:
            return
        source = self.rng.choice(sources)
        value = self.keys[source].sure
        self.write("copy", key, value, home, lambda at: self.call(at, "copy_object", Bucket=BUCKET, Key=key, CopySource={"Bucket": BUCKET, "Key": source}))

    def multipart(self, key, home):
        tail = self.rng.choice((1, 70_000, 1_500_000))
        data, value = self.body(PART + tail)
        try:
            upload = self.call(home, "create_multipart_upload", Bucket=BUCKET, Key=key, Metadata={"sha": value[0]})[0]["UploadId"]
            parts = []
            for i, part in enumerate((data[:PART], data[PART:])):
                at = (home + i) % len(self.homes) if self.rng.random() < 0.3 else home  # parts may go to any home
                answer, _ = self.call(at, "upload_part", Bucket=BUCKET, Key=key, UploadId=upload, PartNumber=i + 1, Body=part)
                parts.append({"PartNumber": i + 1, "ETag": answer["ETag"]})
            if self.rng.random() < 0.15:
                self.call(home, "abort_multipart_upload", Bucket=BUCKET, Key=key, UploadId=upload)
                return
        except Failed as e:
            # Nothing of it is to be seen, ever: the upload was not completed.
            self.record("part", key, home, time.monotonic(), e.outcome, code=e.code, words=str(e))
            if e.outcome == "no" and e.code not in ("NoConnection", "ConnectTimeout", "NoSuchUpload", "SlowDown"):
                self.fault(f"a part was refused: {e}", key=key, home=home)
            return
        self.write("multipart", key, value, home,
                   lambda at: self.call(at, "complete_multipart_upload", Bucket=BUCKET, Key=key, UploadId=upload, MultipartUpload={"Parts": parts}))

    def get(self, key, home):
        state, began = self.keys[key], time.monotonic()
        try:
            answer, data = self.call(home, "get_object", read=True, Bucket=BUCKET, Key=key)
            value = (sha(data), len(data))
        except Failed as e:
            if e.code != "NoSuchKey":
                self.record("get", key, home, began, e.outcome, value=None, code=e.code, words=str(e))
                return
            answer, value = {"ResponseMetadata": {"HTTPHeaders": {}}}, ABSENT
        fresh = "x-grenier-possibly-stale" not in answer["ResponseMetadata"]["HTTPHeaders"]
        self.record("get", key, home, began, "yes", value=value, fresh=fresh)
        if value and answer.get("Metadata", {}).get("sha") != value[0]:
            self.fault(f"bytes are not those of the object: {value} where {answer.get('Metadata')} was put", key=key, home=home)
        elif fresh:
            possible = sorted(map(str, state.allowed()))
            if not state.observed(value):
                self.fault(f"read {value}, where only {possible} may be", key=key, home=home)

    def get_range(self, key, home):
        state = self.keys[key]
        if not state.certain() or not state.sure or state.sure not in self.bodies or state.sure[1] < 10:
            return self.get(key, home)
        value, began = state.sure, time.monotonic()
        start = self.rng.randrange(value[1])
        end = min(value[1], start + self.rng.choice((1, 1000, 200_000, 2_000_000)))
        try:
            answer, data = self.call(home, "get_object", read=True, Bucket=BUCKET, Key=key, Range=f"bytes={start}-{end - 1}")
        except Failed as e:
            self.record("range", key, home, began, e.outcome, code=e.code, words=str(e))
            if e.code in ("NoSuchKey", "InvalidRange"):
                self.fault(f"a range of an object that is there: {e}", key=key, home=home)
            return None
        self.record("range", key, home, began, "yes", size=len(data))
        if "x-grenier-possibly-stale" not in answer["ResponseMetadata"]["HTTPHeaders"] and data != noise(value[1], self.bodies[value])[start:end]:
            self.fault(f"bytes {start} to {end} are not those of the object", key=key, home=home)
        return None

    def listing(self, key, home):
        """A page of our keys shows what is surely there, and not what surely is not."""
        prefix, began = key.rsplit("/", 1)[0] + "/", time.monotonic()
        try:
            answer, _ = self.call(home, "list_objects_v2", Bucket=BUCKET, Prefix=prefix)
        except Failed as e:
            self.record("list", prefix, home, began, e.outcome, code=e.code, words=str(e))
            return
        fresh = "x-grenier-possibly-stale" not in answer["ResponseMetadata"]["HTTPHeaders"]
        self.record("list", prefix, home, began, "yes", fresh=fresh)
        there = {o["Key"]: o["Size"] for o in answer.get("Contents", [])}
        for k, s in self.keys.items():
            if fresh and k.startswith(prefix) and s.certain():
                if (k in there) != (s.sure is not ABSENT):
                    self.fault(f"the list shows {k in there}, where {s.sure} is", key=k, home=home)
                elif s.sure and there[k] != s.sure[1]:
                    self.fault(f"the list shows {there[k]} bytes of {s.sure[1]}", key=k, home=home)

    def look(self, key, home):
        """Reads a key that all clients swap. Returns (its tag, the id in it), or None."""
        began = time.monotonic()
        try:
            answer, data = self.call(home, "get_object", read=True, Bucket=SHARED, Key=key)
            tag, identity = answer["ETag"], data[:64].split(b" ", 1)[0].decode()
            fresh = "x-grenier-possibly-stale" not in answer["ResponseMetadata"]["HTTPHeaders"]
        except Failed as e:
            if e.code != "NoSuchKey":
                self.record("look", key, home, began, e.outcome, code=e.code, words=str(e))
                return None
            tag, identity, fresh = None, None, True
        self.record("look", key, home, began, "yes", id=identity, fresh=fresh)
        return tag, identity

    def swap(self, _, home):
        key = f"hot/{self.rng.randrange(HOT)}"
        seen = self.look(key, home)
        if seen is None:
            return
        tag, before = seen
        identity = f"{self.number}-{self.n}"
        self.n += 1
        data = f"{identity} {before} ".encode() + noise(self.rng.choice((10, 2_000, 90_000)), identity)
        at, began = self.any_home(), time.monotonic()
        try:
            self.call(at, "put_object", {"If-Match": tag} if tag else {"If-None-Match": "*"}, Bucket=SHARED, Key=key, Body=data)
            self.record("swap", key, at, began, "yes", id=identity, prev=before)
        except Failed as e:
            self.record("swap", key, at, began, e.outcome, id=identity, prev=before, code=e.code, words=str(e))

    def claim(self, _, home):
        """A name that all clients want in the same second."""
        key = f"claim/{int(time.monotonic()) // 3}"
        identity = f"{self.number}-{self.n}"
        self.n += 1
        began = time.monotonic()
        try:
            self.call(home, "put_object", {"If-None-Match": "*"}, Bucket=SHARED, Key=key, Body=identity.encode() + b" ")
            self.record("claim", key, home, began, "yes", id=identity)
        except Failed as e:
            self.record("claim", key, home, began, e.outcome, id=identity, code=e.code, words=str(e))

    def bucket(self, _, home):
        """A bucket of a moment: made, used, emptied, and gone."""
        name, key = f"moment-{self.number}-{self.n}", "only"
        self.n += 1
        steps = (("create_bucket", {}), ("put_object", {"Key": key, "Body": name.encode()}), ("get_object", {"Key": key}), ("delete_object", {"Key": key}), ("delete_bucket", {}))
        for operation, arguments in steps:
            began = time.monotonic()
            try:
                answer, data = self.call(home, operation, read=operation == "get_object", Bucket=name, **arguments)
                self.record("bucket", name, home, began, "yes", step=operation)
                if operation == "get_object" and data != name.encode() and "x-grenier-possibly-stale" not in answer["ResponseMetadata"]["HTTPHeaders"]:
                    self.fault("a new bucket's object reads differently", key=name, home=home)
            except Failed as e:
                self.record("bucket", name, home, began, e.outcome, step=operation, code=e.code, words=str(e))
                if e.outcome == "no" and e.code not in ("NoConnection", "ConnectTimeout"):
                    self.fault(f"{operation} in a bucket of a moment: {e}", key=name, home=home)
                return
            home = self.any_home()

    MIX = ((put, 34), (get, 30), (get_range, 8), (listing, 8), (delete, 6), (copy, 6), (multipart, 1), (put_if_absent, 4), (swap, 9), (claim, 3), (delete_many, 1), (bucket, 1))
    READS = ((get, 6), (get_range, 2), (listing, 2))

    def run(self):
        lull, ending = self.folder / "lull", self.folder / "ending"
        resting = self.folder / f"resting-{self.number}"
        while not ending.exists():
            calm = lull.exists()
            if calm:
                resting.touch()
            elif resting.exists():
                resting.unlink()
            mix = self.READS if calm else self.MIX
            operation = self.rng.choices([m for m, _ in mix], [w for _, w in mix])[0]
            operation(self, self.rng.choice(sorted(self.keys)), self.any_home())
            ahead = self.sent / self.rate - (time.monotonic() - self.began)
            time.sleep(min(max(ahead, 0.01), 2.0) if not calm else 0.1)
        self.history.close()


if __name__ == "__main__":
    Client(sys.argv[1], int(sys.argv[2]), sys.argv[3], float(sys.argv[4])).run()
