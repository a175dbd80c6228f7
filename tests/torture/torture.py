"""Real homes, real clients, real failures: nothing acknowledged may be lost. See scripts/torture --help."""
import argparse
import collections
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time

import faults
import ground
import verdict
from ground import MiB, Ground

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
MEMORY = 256 * MiB  # of one process, at its highest: --memory is 192 MiB, the program's own pages come on top


class Run:
    def __init__(self, options, work):
        self.options, self.work, self.begun = options, work, time.monotonic()
        self.ground = Ground(work, options.bin, options.homes)
        self.ground.clients = options.clients
        self.violations, self.workers = [], []
        self.watched, self.lock = True, threading.Lock()
        self.secrets = []
        self.doer = faults.Doer(self.ground, options.seed, self.say, self.wrong)

    def say(self, words):
        if not self.options.json:
            print(f"{time.monotonic() - self.begun:7.1f} s  {words}", flush=True)

    def wrong(self, words):
        with self.lock:
            self.violations.append(words)
        print(f"{time.monotonic() - self.begun:7.1f} s  VIOLATION: {words}", file=sys.stderr, flush=True)

    def prepare(self):
        self.ground.make()
        self.ground.form()
        made = self.ground.homes[0].ctl("key", "create", "torture")
        self.secrets = [made["secret_access_key"]]
        os.environ.update(AWS_ACCESS_KEY_ID=made["access_key_id"], AWS_SECRET_ACCESS_KEY=made["secret_access_key"], AWS_DEFAULT_REGION="garage", AWS_EC2_METADATA_DISABLED="true")
        s3 = verdict.client(self.ground.homes[0])
        for bucket in ("torture", "shared"):
            s3.create_bucket(Bucket=bucket)
        self.say(f"{len(self.ground.homes)} homes in network namespaces, data on {self.ground.file_systems}; {self.options.clients} client processes")

    def start_clients(self):
        for i in range(self.options.clients):
            errors = open(self.work / f"client-{i}.err", "wb")
            self.workers.append(subprocess.Popen([sys.executable, "-B", str(HERE / "clients.py"), str(self.work), str(i), self.options.seed, str(self.options.rate * 1024 / self.options.clients)],
                                                 stdin=subprocess.DEVNULL, stdout=errors, stderr=errors, preexec_fn=ground.die_with_parent))

    def watch(self):
        """No process ends by itself, and none grows without bound."""
        told = set()
        while self.watched:
            for home in self.ground.homes:
                process = home.process
                if home.wanted and process.poll() is not None and home.wanted and process is home.process and process.pid not in told:
                    told.add(process.pid)
                    self.wrong(f"{home.zone} ended by itself with {process.returncode}: {home.tail(5)}")
                home.note_peak()
            for i, worker in enumerate(self.workers):
                if worker.poll() not in (None, 0) and worker.pid not in told:
                    told.add(worker.pid)
                    self.wrong(f"client {i} ended with {worker.returncode}: {(self.work / f'client-{i}.err').read_text()[-800:]}")
            time.sleep(1)

    def torture(self):
        seconds = self.options.minutes * 60
        end = time.monotonic() + seconds
        steps = faults.plan(self.options.seed, self.options.homes, seconds)
        for pause, step in steps:
            time.sleep(min(pause, max(0.0, end - time.monotonic())))
            if time.monotonic() >= end:
                break
            kind, number, length, detail = step[0]
            self.say(" and ".join(f"{k} at {self.ground.homes[n].zone}" + (f" for {length} s" if length else "") + (f" ({d})" if k == "rows-damaged" else "") for k, n, _, d in step))
            try:
                if length:
                    self.doer.passing(step)
                else:
                    self.doer.destroying(kind, number, detail)
            except Exception as e:  # noqa: BLE001 - a fault that cannot be done is told, and the run goes on to its verdict
                self.wrong(f"{kind} at home {number}: {e!r}")
            self.revive()

    def revive(self):
        """A home that ended where it should not is started again (the violation is noted): the rest of the run has something to say as well."""
        for home in self.ground.homes:
            if not home.alive() and home.dir.exists():  # without its rows it would found a cluster of its own
                try:
                    home.start(wait=20)
                except Exception as e:  # noqa: BLE001
                    self.say(f"{home.zone} stays away: {e}")

    def end_clients(self):
        (self.work / "ending").touch()
        for i, worker in enumerate(self.workers):
            try:
                worker.wait(150)
            except subprocess.TimeoutExpired:
                self.wrong(f"client {i} hangs")
                worker.kill()

    def records(self):
        found = []
        for path in sorted(self.work.glob("history-*.jsonl")):
            with open(path, encoding="utf-8") as f:
                found += [json.loads(line) for line in f if line.endswith("\n")]
        return found

    def run(self):
        self.prepare()
        threading.Thread(target=self.watch, daemon=True).start()
        self.start_clients()
        self.torture()
        self.say("the faults are over: homes heal, clients end")
        self.end_clients()
        waited = {}
        try:
            start = time.monotonic()
            self.ground.wait_whole(240)
            waited["whole"] = round(time.monotonic() - start, 1)
            took, waited["repair asked for"] = self.ground.wait_quiet(420)
            waited["queues empty"] = round(took, 1)
        except TimeoutError as e:
            self.wrong(f"after the faults: {e}")
        records = self.records()
        self.say("reading everything at every home")
        found = verdict.judge(self.ground, records, self.doer.under, self.secrets, self.wrong)
        for home in self.ground.homes:
            home.note_peak()
            if home.peak > MEMORY:
                self.wrong(f"{home.zone} took {home.peak / MiB:.0f} MiB of memory")
        self.watched = False
        return self.summary(records, found, waited)

    def summary(self, records, found, waited):
        operations = collections.Counter(r["op"] for r in records if r["op"] != "fault")
        outcomes = collections.Counter(r["outcome"] for r in records if r["op"] != "fault")
        return {"seed": self.options.seed, "homes": self.options.homes, "minutes": self.options.minutes, "operations": sum(operations.values()),
                "by_operation": dict(operations.most_common()), "outcomes": dict(outcomes), "faults": sum(v for k, v in self.doer.counts.items() if " (" not in k and ":" not in k),
                "by_fault": dict(sorted(self.doer.counts.items())), "way_back_seconds": self.doer.times, "healed_seconds": waited, "repairs_asked_for": self.doer.hurried, "invites_in_vain": self.doer.joins_again,
                "memory_peak_mib": {h.zone: round(h.peak / MiB) for h in self.ground.homes}, "starts": {h.zone: h.starts for h in self.ground.homes},
                **found, "violations": self.violations}


def show(s):
    print(f"""
seed {s['seed']}, {s['homes']} homes, {s['minutes']:g} minutes
  operations        {s['operations']}   ({', '.join(f'{k} {v}' for k, v in s['by_operation'].items())})
  answers           {s['outcomes'].get('yes', 0)} good, {s['outcomes'].get('no', 0)} refused, {s['outcomes'].get('unknown', 0)} of unknown outcome (5xx, timeouts, broken connections)
  faults            {s['faults']}   ({', '.join(f'{k} {v}' for k, v in s['by_fault'].items())})
  ways back         {', '.join(f'{k} {min(v):g} to {max(v):g} s' for k, v in s['way_back_seconds'].items()) or 'none'}
  after the faults  {', '.join(f'{k} {v:g}' for k, v in s['healed_seconds'].items())}
  memory            {', '.join(f'{k} {v} MiB' for k, v in s['memory_peak_mib'].items())} at most
  slowest request   {s['slowest']:.1f} s at a home that nothing was done to
  verified          {s['verified']} objects at each home ({s['bytes'] >> 20} MiB), {s['swapped']} swaps and {s['claims']} claims by {s['clients']} clients
  losses            {s['losses']}
  violations        {len(s['violations'])}""")


def main():
    parser = argparse.ArgumentParser(prog="scripts/torture", description="Three or five real homes in network namespaces; clients write and verify while homes are killed, frozen, cut off, "
                                     "filled, damaged and emptied. Ends with 1 if anything acknowledged is lost, or anything else does not hold.")
    parser.add_argument("--minutes", type=float, default=3, help="of faults; healing and reading back come on top (default 3)")
    parser.add_argument("--homes", type=int, choices=(3, 5), default=3)
    parser.add_argument("--seed", help="of the plan of faults and of the clients' work (default: drawn, and printed)")
    parser.add_argument("--clients", type=int, default=4, help="client processes (default 4)")
    parser.add_argument("--rate", type=int, default=2500, help="KiB a second that all clients write together at most (default 2500)")
    parser.add_argument("--bin", default=os.environ.get("GRENIER_BIN", str(ROOT / "build/bin")), help="where storaged and storagectl are (default build/bin)")
    parser.add_argument("--keep", action="store_true", help="keep histories and logs of a good run, too")
    parser.add_argument("--plan", action="store_true", help="print what would be done, and end")
    parser.add_argument("--json", action="store_true", help="the summary as JSON")
    options = parser.parse_args()
    options.seed = options.seed or str(random.SystemRandom().randrange(1_000_000))
    if options.plan:
        for pause, step in faults.plan(options.seed, options.homes, options.minutes * 60):
            print(f"{pause:4.1f} s later: " + " and ".join(f"{k} at {ground.ZONES[n]}" + (f" for {length} s" if length else "") + (f" ({d})" if k == "rows-damaged" else "") for k, n, length, d in step))
        return 0
    if "--seed" not in sys.argv:
        sys.argv += ["--seed", options.seed]
    ground.private_namespaces(["-B", str(HERE / "torture.py"), *sys.argv[1:]])
    again = f"scripts/torture --homes {options.homes} --minutes {options.minutes:g} --seed {options.seed}"
    if not options.json:
        print(f"again: {again}", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
    work = pathlib.Path(tempfile.mkdtemp(prefix="grenier-torture."))
    run = Run(options, work)
    try:
        summary = run.run()
    finally:
        run.watched = False
        for worker in run.workers:
            if worker.poll() is None:
                worker.kill()
        run.ground.close()
    summary["again"] = again
    bad = bool(summary["violations"] or summary["losses"])
    for image in work.glob("*.img"):
        image.unlink()
    if options.json:
        print(json.dumps(summary, indent=1))
    else:
        show(summary)
    if bad:
        print(f"histories and logs are in {work}; again: {again}", file=sys.stderr)
    elif options.keep:
        print(f"histories and logs are in {work}", file=sys.stderr)
    else:
        run.ground.remove()
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
