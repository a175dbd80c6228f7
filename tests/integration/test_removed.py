"""A home that was removed and is started again: it is told so, says so everywhere, serves nothing, and comes back as a newcomer."""
import shutil
import subprocess
import urllib.error
import urllib.request

import botocore.exceptions
import pytest

from conftest import STORAGECTL, STORAGED, noise, sha, until


def health(home):
    try:
        with urllib.request.urlopen(f"http://{home.admin}/health", timeout=5) as r:
            return r.status, r.read().decode()
    except urllib.error.HTTPError as e:
        return e.code, e.read().decode()


def shown(home, *args):
    return subprocess.run([STORAGECTL, "--data-dir", str(home.dir), *args], capture_output=True, text=True, check=False, timeout=60)


def test_a_removed_home_is_told_and_comes_back_as_a_newcomer(cluster, tmp_path):
    first, gone = cluster.homes[0], cluster.homes[2]
    s3 = cluster.s3(0)
    s3.create_bucket(Bucket="kept")
    bodies = {f"k{i}": noise((100, 1_300_000)[i % 2], ("kept", i)) for i in range(10)}
    for key, body in bodies.items():
        s3.put_object(Bucket="kept", Key=key, Body=body)
    cluster.wait_quiet()
    old = next(n["id"] for n in gone.status()["nodes"] if n["self"])
    gone.stop()
    until("it is seen dark", lambda: not next(n for n in first.status()["nodes"] if n["id"] == old)["up"], 15)
    text = shown(first, "status").stdout
    row = next(line for line in text.splitlines() if line.startswith("home-nice")).split()
    assert "DARK" in row and row[7] == "-", f"nobody knows how much is free in a dark home: {row}"
    before = first.ctl("invite")["invite"]
    would = first.ctl("layout", "remove", "home-nice", "--dry-run")["departure"]
    assert would["safe"] and would["only_copies"] == 0 and would["copies_then"] == 2 and would["id"] == old, would
    said = shown(first, "layout", "remove", old[:8], "--dry-run")
    assert said.returncode == 0 and "Nothing that was acknowledged is lost" in said.stdout and len(first.status()["nodes"]) == 3
    # With a second one dark it cannot be decided.
    cluster.homes[1].freeze()
    until("the other one is seen dark too", lambda: sum(n["up"] for n in first.status()["nodes"]) == 1, 20)
    refused = shown(first, "layout", "remove", old[:8])
    assert refused.returncode == 5 and "too few to decide" in refused.stdout and "is dark too" in refused.stdout and "cannot be removed now" in refused.stderr, refused
    refused = shown(first, "--json", "layout", "remove", old[:8], "--yes")
    assert refused.returncode == 5 and "too few to decide" in refused.stdout, refused
    cluster.homes[1].thaw()
    until("it is back", lambda: sum(n["up"] for n in first.status()["nodes"]) == 2, 20)
    until("nothing would be lost", lambda: first.ctl("layout", "remove", "home-nice", "--dry-run")["departure"]["safe"], 60)
    left = shown(first, "layout", "remove", old[:8])
    assert left.returncode == 0 and ("The cluster has a new key, which that home does not know" in left.stdout or "is changed when the layout's change has ended" in left.stdout), left
    until("the others know the new key", lambda: all(h.status()["cluster_key"] == {"changes": 1, "current": True} for h in cluster.homes[:2]), 90)
    until("the others have gone on", lambda: first.status()["layout"]["phase"] == "settled" and len(first.status()["nodes"]) == 2, 60)

    # It is started again, as if nothing had happened.
    gone.start(wait=False)
    status = until("it knows", lambda: (s := gone.status())["health"] == "removed" and s, 20)
    assert status["removed"] is True and status["nodes"] == [] and status["this_node"]["id"] == old
    words = ("removed from its cluster", "storagectl invite", "--join", str(gone.dir), f"mv {gone.dir} {gone.dir}.removed")
    for w in words:
        assert w in status["say"], status["say"]
        assert w in gone.log.read_text(), gone.tail()
    assert sum("removed from its cluster" in line for line in gone.log.read_text().splitlines()) == 1, "said once a start"
    code, body = health(gone)
    assert code == 503 and body.startswith("removed\n") and "storagectl invite" in body
    said = shown(gone, "status")
    assert said.returncode == 0 and "removed" in said.stdout.splitlines()[0] and "DARK" not in said.stdout
    refused = shown(gone, "key", "create", "x")
    assert refused.returncode == 1 and "removed from its cluster" in refused.stderr
    with pytest.raises(botocore.exceptions.ClientError) as e:
        cluster.s3(2).get_object(Bucket="kept", Key="k0")
    assert e.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503 and "removed" in e.value.response["Error"]["Message"]
    until("the others noticed", lambda: any("was removed from the cluster and calls again" in h.log.read_text() for h in cluster.homes[:2]), 5)
    assert len(first.status()["nodes"]) == 2 and all(n["up"] for n in first.status()["nodes"])

    # The same after a restart, also when nobody else is there to be asked; and --join does not change it.
    assert gone.stop() == 0
    for h in cluster.homes[:2]:
        h.freeze()
    gone.start(wait=False)
    until("it remembers", lambda: gone.status()["health"] == "removed", 10)
    for h in cluster.homes[:2]:
        h.thaw()
    assert gone.stop() == 0
    until("both are up", lambda: all(n["up"] for n in first.status()["nodes"]), 20)
    invite = first.ctl("invite")["invite"]
    ports = ("--s3-listen", gone.s3, "--web-listen", gone.web, "--rpc-listen", gone.rpc, "--admin-listen", gone.admin)
    gone.start(invite, wait=False)  # a unit that goes on saying --join does not start in circles
    until("it says why that is no use", lambda: "--join is ignored: this home was removed" in gone.log.read_text(), 10)
    until("it says so in status too", lambda: gone.status()["health"] == "removed", 10)
    assert gone.stop() == 0

    # An invite that the removed home may have known of is void.
    done = subprocess.run([STORAGED, "--zone", "home-nice", "--data-dir", str(tmp_path / "other"), *ports, "--join", before], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1 and "older than the last removal" in done.stderr, done.stderr

    # What it says to do works.
    shutil.move(gone.dir, tmp_path / "removed")
    gone.start(invite)
    text = gone.log.read_text()
    assert "has joined the cluster" in text and "key create NAME" in text and f"aws --endpoint-url http://{gone.s3}" in text
    cluster.wait_whole()
    cluster.wait_quiet(90)
    for key, body in bodies.items():
        assert sha(cluster.s3(2).get_object(Bucket="kept", Key=key)["Body"].read()) == sha(body)


def test_tables_are_sorted_by_zone_and_an_error_goes_when_all_is_well(cluster):
    cluster.wait_whole()
    for home in cluster.homes:
        zones = [n["zone"] for n in home.status()["nodes"]]
        assert zones == sorted(zones)
        zones = [m["zone"] for m in home.ctl("layout", "show")["current"]["members"]]
        assert zones == sorted(zones)
    assert "3 copies of each" in shown(cluster.homes[0], "layout", "show").stdout
    # One goes dark in the middle of being compared with: the error is about that zone, has an age, and goes.
    first, other = cluster.homes[:2]
    s3 = cluster.s3(0)
    other.freeze()
    for i in range(5):
        s3.put_object(Bucket="kept", Key=f"late{i}", Body=b"x" * 100)
    first.ctl("repair")
    other.thaw()
    until("all is well again", lambda: all(h.status()["this_node"]["last_error"] is None for h in cluster.homes), 150)


def test_repair_status_and_metrics(cluster):
    compared = False
    for home in cluster.homes:
        works = {w["work"]: w for w in home.ctl("repair", "status")["works"]}
        assert set(works) == {"handoff", "comparison", "merging", "resync", "guests", "scrub"}
        compared = compared or (works["comparison"]["items"] > 0 and works["comparison"]["last_run_ago_s"] is not None)
    assert compared, "one of two asks"
    newcomer = {w["work"]: w for w in cluster.homes[2].ctl("repair", "status")["works"]}
    assert newcomer["resync"]["items"] > 0 and newcomer["resync"]["bytes"] > 1_000_000, "it fetched its blocks"
    assert newcomer["merging"]["items"] > 0 and newcomer["merging"]["waiting"] == 0
    text = shown(cluster.homes[2], "repair", "status").stdout
    assert "Budget" in text and "scrub" in text
    assert "has started" in shown(cluster.homes[2], "repair").stdout
    metrics = urllib.request.urlopen(f"http://{cluster.homes[2].admin}/metrics", timeout=5).read().decode()
    for name in ('grenier_repair_items_total{work="resync"}', 'grenier_repair_failing{work="scrub"} 0', 'grenier_repair_budget{of="blocks_at_once"} 2'):
        assert name in metrics, name
