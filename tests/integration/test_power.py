"""Two power losses of a real file system in the middle of a run: `./scripts/power` makes more of them."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from benchmarks import power
from tests.support import ROOT, running


@pytest.mark.timeout(600)
def test_two_power_losses_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    """In a process of its own, which gets mounts of its own and unmounts them when it is told to end."""
    seed = str(random.randrange(1_000_000))
    argv = (sys.executable, "-P", "-m", "benchmarks.power", "--losses", "2", "--items", "8", "--workers", "2")
    with running((*argv, "--seed", seed, "--dir", tmp_path), cwd=ROOT, stderr=subprocess.STDOUT) as bench:
        try:
            out = bench.communicate(timeout=240)[0].decode()
        finally:
            if bench.poll() is None:
                bench.terminate()
                bench.wait(60)
    if out.startswith("skipped: "):
        pytest.skip(out.removeprefix("skipped: ").strip())
    assert bench.returncode == 0, out
    assert f"2 power losses of ext4, 8 items (seed {seed}), durability power: 0 violations" in out
    assert list(tmp_path.iterdir()) == []
    backing = [path.read_text() for path in Path("/sys/block").glob("loop*/loop/backing_file")]
    assert not [file for file in backing if file.startswith(str(tmp_path))]


def test_where_there_is_no_power_to_lose_it_is_said_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert power.possible() == "needs root (mount, shutdown ioctl)"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "mkfs.ext4" else name)
    assert power.possible() == "needs mkfs.ext4"
    monkeypatch.setattr(shutil, "which", lambda name: name)
    monkeypatch.setattr(power, "_own_mounts", lambda: None)

    def refused(*argv: str) -> str:
        raise subprocess.CalledProcessError(32, argv, stderr="mount: permission denied\n")

    monkeypatch.setattr(power, "sh", refused)
    assert power.possible() == "no ext4 on a loop device can be mounted here: mount: permission denied"
    assert list(tmp_path.iterdir()) == []
