"""The verdict at the end: every key read at every home and held against the history, lists, swaps, claims, secrets in logs."""
import collections
import concurrent.futures
import itertools

import boto3
import botocore.config
import botocore.exceptions

from clients import BUCKET, FAILURES, SHARED, TIMEOUT
from faults import secrets_of
from ground import S3
from history import ABSENT, check_chain, check_claim, replay, sha


def client(home):
    config = botocore.config.Config(retries={"max_attempts": 2}, s3={"addressing_style": "path"}, connect_timeout=5, read_timeout=60, max_pool_connections=16)
    return boto3.client("s3", endpoint_url=f"http://{home.address}:{S3}", region_name="garage", config=config)


def read(s3, bucket, key):
    """(value, body, whether it is marked as possibly stale); an error in words instead of a value."""
    for last in (False, False, True):
        try:
            answer = s3.get_object(Bucket=bucket, Key=key)
            data = answer["Body"].read()
            return (sha(data), len(data)), data, "x-grenier-possibly-stale" in answer["ResponseMetadata"]["HTTPHeaders"]
        except FAILURES as e:
            if isinstance(e, botocore.exceptions.ClientError) and e.response["Error"]["Code"] == "NoSuchKey":
                return ABSENT, b"", False
            if last:
                return str(e), b"", False
    return None


def listed(s3, bucket):
    return {o["Key"]: o["Size"] for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, PaginationConfig={"PageSize": 100}) for o in page.get("Contents", [])}


def read_back(ground, keys, wrong):
    """Every key with one writer, at every home: all answer the same, and it is what may be there. Returns (losses, objects, bytes)."""
    connections = [client(h) for h in ground.homes]
    names = sorted(keys)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = [list(pool.map(lambda k, c=c: read(c, BUCKET, k)[0::2], names)) for c in connections]
    losses, objects, size = 0, 0, 0
    for i, key in enumerate(names):
        got = [a[i] for a in answers]
        values = {v for v, _ in got}
        bad = []
        if any(stale for _, stale in got):
            bad.append("marked as possibly stale")
        if len(values) > 1:
            bad.append("homes differ")
        if not values <= keys[key].allowed():
            bad.append(f"only {sorted(map(str, keys[key].allowed()))} may be there")
        if bad:
            losses += 1
            wrong(f"LOST {key}: {', '.join(bad)}; read {[str(v) for v, _ in got]}")
        elif got[0][0]:
            objects += 1
            size += got[0][0][1]
    truth = {k: a[0][1] for k, a in zip(names, answers[0]) if isinstance(a[0], tuple)}
    for home, s3 in zip(ground.homes, connections):
        shown = listed(s3, BUCKET)
        for key in sorted(set(shown) ^ set(truth))[:20]:
            wrong(f"the list at {home.zone} shows {key}: {key in shown}; a read found it: {key in truth}")
        for key in sorted(k for k in set(shown) & set(truth) if shown[k] != truth[k])[:20]:
            wrong(f"the list at {home.zone} shows {shown[key]} bytes for {key}, a read found {truth[key]}")
    return losses, objects, size


def shared(ground, records, wrong):
    """What many clients wrote by compare-and-swap."""
    connections = [client(h) for h in ground.homes]
    by_key = collections.defaultdict(list)
    for r in records:
        if r["op"] in ("swap", "look", "claim"):
            by_key[r["key"]].append(r)
    losses = 0
    for key, history in sorted(by_key.items()):
        finals = set()
        for s3 in connections:
            value, data, _ = read(s3, SHARED, key)
            finals.add(data[:64].split(b" ", 1)[0].decode() if isinstance(value, tuple) else value)
        if len(finals) > 1:
            found = [f"{key}: homes differ: {finals}"]
        else:
            found = (check_claim if key.startswith("claim/") else check_chain)(key, history, finals.pop())
        losses += bool(found)
        for words in found[:10]:
            wrong(f"SWAP {words}")
    return losses


def slowest(records, under, wrong):
    """The longest wait for an answer at a home that nothing was done to in that time; none may hang."""
    longest = 0.0
    for r in records:
        took = r["ended"] - r["began"]
        if took <= longest or any(n == r["home"] and b < r["ended"] and e + 5 > r["began"] for b, e, n in under):
            continue
        if r.get("code") in ("ReadTimeoutError", "ConnectTimeout", "NoConnection") and took > TIMEOUT - 1:
            wrong(f"no answer within {TIMEOUT} s from home {r['home']}, to which nothing was done: {r['op']} {r['key']}")
        longest = max(longest, took)
    return longest


def leaks(ground, secrets, wrong):
    """No log and no answer to a client holds a secret."""
    hidden = set(secrets) | set(itertools.chain.from_iterable(secrets_of(i) for h in ground.homes for i in h.invites))
    for path in [h.log for h in ground.homes] + sorted(ground.work.glob("history-*.jsonl")) + sorted(ground.work.glob("client-*.err")):
        text = path.read_text(errors="replace") if path.exists() else ""
        for secret in hidden:
            if secret in text:
                wrong(f"{path.name} holds a secret, near: {text[max(0, text.index(secret) - 120):text.index(secret)]}")


def judge(ground, records, under, secrets, wrong):
    seen = [r for r in records if r["op"] == "fault"]
    for r in seen[:50]:
        wrong(f"client {r['client']}, {r['key']}, home {r['home']}: {r['words']}")
    for r in records:
        if r["outcome"] == "no" and r.get("code") not in ("NoConnection", "ConnectTimeout") and r["op"] in ("get", "range", "list", "look"):
            wrong(f"a read was refused: {r['op']} {r['key']} at home {r['home']}: {r.get('words')}")
    keys = replay(records)
    losses, objects, size = read_back(ground, keys, wrong)
    losses += shared(ground, records, wrong)
    leaks(ground, secrets, wrong)
    return {"verified": objects, "bytes": size, "losses": losses, "slowest": slowest(records, under, wrong), "clients": len({r["client"] for r in records}),
            "swapped": sum(r["op"] == "swap" and r["outcome"] == "yes" for r in records), "claims": sum(r["op"] == "claim" and r["outcome"] == "yes" for r in records)}
