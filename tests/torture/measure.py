"""Figures of real homes in network namespaces.

usage: measure.py hung  [--seconds 20] [--rounds 3]        one of three homes hangs (SIGSTOP): latencies of the others' requests, before and meanwhile
       measure.py slept [--objects 10000] [--size 2000]    one of three homes is off while objects are written: what its line carries once it is back
"""
import argparse
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

import ground
import verdict
from history import noise

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def worker(url, seed, until_time, out):
    """One client of the hung measurement: small and larger puts and gets, one after the other."""
    import boto3
    import botocore.config
    s3 = boto3.client("s3", endpoint_url=url, region_name="garage", config=botocore.config.Config(retries={"max_attempts": 0}, s3={"addressing_style": "path"}, read_timeout=60))
    rng, keys, n = random.Random(seed), [], 0
    with open(out, "w", encoding="utf-8") as f:
        while time.monotonic() < until_time:
            size = rng.choice((900, 900, 5_000, 5_000, 70_000, 300_000))
            what = "get" if keys and rng.random() < 0.5 else "put"
            key = rng.choice(keys) if what == "get" else f"{seed}/{n % 200}"
            began, good = time.monotonic(), True
            try:
                if what == "put":
                    s3.put_object(Bucket="measured", Key=key, Body=noise(size, (seed, n)))
                    keys.append(key)
                else:
                    s3.get_object(Bucket="measured", Key=key)["Body"].read()
            except Exception:  # noqa: BLE001 - counted
                good = False
            n += 1
            f.write(f"{what} {began} {time.monotonic() - began} {int(good)}\n")
            time.sleep(0.01)


def writer(url, first, count, size):
    import boto3
    import botocore.config
    s3 = boto3.client("s3", endpoint_url=url, region_name="garage", config=botocore.config.Config(retries={"max_attempts": 3}, s3={"addressing_style": "path"}))
    for i in range(first, first + count):
        s3.put_object(Bucket="measured", Key=f"{i:06}", Body=noise(size, i))


def again(*arguments):
    return subprocess.Popen([sys.executable, "-B", __file__, *map(str, arguments)], stdin=subprocess.DEVNULL, preexec_fn=ground.die_with_parent)


def quantile(values, q):
    return sorted(values)[min(len(values) - 1, int(len(values) * q))] if values else float("nan")


def hung(g, options):
    end = time.monotonic() + 3 + options.rounds * 2 * options.seconds
    outs = [g.work / f"latency-{i}" for i in range(4)]
    workers = [again("worker", f"http://{g.homes[i % 2].address}:{ground.S3}", i, end, outs[i]) for i in range(4)]
    time.sleep(3)
    phases = []
    for _ in range(options.rounds):
        start = time.monotonic()
        time.sleep(options.seconds)
        phases.append(("before", start, time.monotonic()))
        g.homes[2].signal(signal.SIGSTOP)
        start = time.monotonic()
        time.sleep(options.seconds - 4)
        phases.append(("hung", start, time.monotonic()))
        g.homes[2].signal(signal.SIGCONT)
        time.sleep(4)
    for w in workers:
        w.wait(90)
    lines = [line.split() for o in outs for line in o.read_text().splitlines()]
    result = {}
    for what in ("put", "get", "all"):
        for phase in ("before", "hung"):
            found = [(float(t), g == "1") for w, b, t, g in lines if what in (w, "all") and any(p == phase and s <= float(b) < e for p, s, e in phases)]
            times = [t for t, _ in found]
            result[f"{what} {phase}"] = {"requests": len(times), "errors": sum(not ok for _, ok in found), "p50_ms": round(quantile(times, 0.5) * 1000, 1),
                                         "p99_ms": round(quantile(times, 0.99) * 1000, 1), "max_ms": round(max(times, default=0) * 1000, 1)}
        result[f"{what} p99 ratio"] = round(result[f"{what} hung"]["p99_ms"] / result[f"{what} before"]["p99_ms"], 2)
    return result


def slept(g, options):
    home = g.homes[2]
    g.wait_quiet()
    idle = home.counters()
    time.sleep(10)
    idle = [(b - a) / 10 for a, b in zip(idle, home.counters())]
    before = ground.metrics(g.homes[0])
    home.kill()
    start = time.monotonic()
    writers = [again("writer", f"http://{g.homes[i % 2].address}:{ground.S3}", i * (options.objects // 4), options.objects // 4, options.size) for i in range(4)]
    for w in writers:
        if w.wait():
            raise SystemExit("a writer failed")
    wrote = time.monotonic() - start
    waiting = {h.zone: {k: v for k, v in h.status()["queues"].items() if v} for h in g.homes[:2]}
    after = ground.metrics(g.homes[0])
    at_start = home.counters()
    start = time.monotonic()
    home.start()
    ready = time.monotonic() - start
    time.sleep(1)
    g.wait_quiet(900)
    took = time.monotonic() - start
    to, came = (b - a for a, b in zip(at_start, home.counters()))
    objects = options.objects // 4 * 4
    missing = objects * options.size
    there = sum(1 for k in verdict.listed(verdict.client(home), "measured"))
    grown = {k: after[k] - before.get(k, 0) for k in after if k in ("grenier_block_stored_bytes", "grenier_kv_live_bytes", "grenier_blocks")}
    return {"objects": objects, "size": options.size, "written_seconds": round(wrote, 1), "waiting_when_it_came_back": waiting, "ready_seconds": round(ready, 1),
            "queues_empty_after_seconds": round(took, 1), "missing_body_bytes": missing, "bytes_to_it": to, "bytes_from_it": came, "idle_bytes_a_second": [round(i) for i in idle],
            "ratio_to_bodies": round(to / missing, 3), "bytes_to_it_beyond_bodies_an_object": round((to - missing) / objects), "listed_there": there, "home_0_grew": grown,
            "rows": {h.zone: {k: v for k, v in ground.metrics(h).items() if "repair_rows" in k or "kv_batches" in k} for h in g.homes}}


def main():
    if sys.argv[1:2] == ["worker"]:
        return worker(sys.argv[2], sys.argv[3], float(sys.argv[4]), sys.argv[5])
    if sys.argv[1:2] == ["writer"]:
        return writer(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("hung", "slept"))
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--objects", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=2_000)
    parser.add_argument("--bin", default=os.environ.get("GRENIER_BIN", str(ROOT / "build/bin")))
    options = parser.parse_args()
    ground.private_namespaces(["-B", str(HERE / "measure.py"), *sys.argv[1:]])
    g = ground.Ground(tempfile.mkdtemp(prefix="grenier-measure."), options.bin, 3)
    try:
        g.make()
        g.form()
        made = g.homes[0].ctl("key", "create", "measure")
        os.environ.update(AWS_ACCESS_KEY_ID=made["access_key_id"], AWS_SECRET_ACCESS_KEY=made["secret_access_key"], AWS_EC2_METADATA_DISABLED="true")
        verdict.client(g.homes[0]).create_bucket(Bucket="measured")
        print(json.dumps({"hung": hung, "slept": slept}[options.what](g, options), indent=1))
    finally:
        g.close()
        g.remove()
    return 0


if __name__ == "__main__":
    sys.exit(main())
