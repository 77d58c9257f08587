"""Ten processes and one item, at the same moment: `./scripts/contention` does the same a million times."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support import ROOT, environment


def test_of_ten_processes_that_link_at_once_exactly_one_owns_the_item(tmp_path: Path) -> None:
    """In a process of its own: ten forks of this one, full of tests, cost five times as much."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "benchmarks.contention", "--races", "1000", "--dir", str(tmp_path)],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "1,000 races of 10 processes" in done.stdout
    assert done.stdout.endswith("one winner each\n")
    assert "{1: 1000} winners" in done.stderr
