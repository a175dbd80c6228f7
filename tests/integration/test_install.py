"""What `meson install` puts where, and that it runs from there."""
import os
import shutil
import subprocess

import pytest

from conftest import ROOT, Home

BUILD = ROOT / "build"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    if not (BUILD / "build.ninja").exists() or not (BUILD / "bench/grenier-bench").exists():
        pytest.skip("there is no build directory to install from")
    root = tmp_path_factory.mktemp("installed")
    done = subprocess.run(["meson", "install", "-C", str(BUILD), "--no-rebuild", "--destdir", str(root)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    yield root
    shutil.rmtree(root, ignore_errors=True)


def prefix_of(root):
    return next(root.rglob("storaged.service")).parents[3]


def test_everything_lies_below_the_prefix(root):
    prefix = prefix_of(root)
    for file in ("sbin/storaged", "bin/storagectl", "bin/grenier-bench", "libexec/grenier/grenier-picture"):
        assert os.access(prefix / file, os.X_OK), file
    for file in ("man8/storaged.8", "man1/storagectl.1", "man1/storagectl-gallery.1", "man1/grenier-bench.1", "man5/storaged.toml.5"):
        assert (prefix / "share/man" / file).stat().st_size > 500, file
    assert (prefix / "lib/sysusers.d/grenier.conf").read_text().startswith("u grenier ")
    assert not [p for p in root.rglob("*") if p.is_file() and not p.is_relative_to(prefix)]
    for name in ("storaged", "grenier-picture", "storagectl"):
        assert len(list(root.rglob(name))) == 1
    assert not [p for p in root.rglob("*_test")], "no test is installed"


def test_the_unit_starts_what_was_installed(root):
    unit = next(root.rglob("storaged.service"))
    start = next(line for line in unit.read_text().splitlines() if line.startswith("ExecStart=")).split("=", 1)[1].split()
    assert (root / start[0].lstrip("/")).exists() and "@" not in unit.read_text()
    if shutil.which("systemd-analyze"):
        copy = unit.with_name("storaged-check.service")
        copy.write_text(unit.read_text().replace(start[0], str(root / start[0].lstrip("/"))).replace("User=grenier\n", ""))
        done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(copy)], capture_output=True, text=True, check=False)
        copy.unlink()
        assert "storaged-check.service" not in done.stdout + done.stderr, done.stdout + done.stderr


def test_it_runs_from_there_with_the_example(root, tmp_path):
    prefix = prefix_of(root)
    home = Home(tmp_path, "home-lyon")
    settings = tmp_path / "storaged.toml"
    settings.write_text((prefix / "share/doc/grenier/storaged.toml.example").read_text())
    with open(home.log, "ab") as log:
        home.process = subprocess.Popen([prefix / "sbin/storaged", "--config", settings, "--data-dir", home.dir, "--s3-listen", home.s3, "--web-listen", home.web, "--rpc-listen", home.rpc,
                                         "--admin-listen", home.admin, "--capacity", "5G"], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    Home.started.append(home)
    home.wait_ready()
    assert "grenier-picture was not found" not in home.log.read_text()
    services = home.status()["nodes"][0]["services"]
    assert "storage" in services and len(services) >= 4, "it renders pictures too"
    done = subprocess.run([prefix / "bin/storagectl", "--data-dir", home.dir, "status"], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "home-lyon" in done.stdout
    assert home.stop() == 0
