"""Mistakes on purpose are off unless somebody asks for them by name, and loud then."""

from __future__ import annotations

import os
import subprocess
import sys

from harness.failpoints import NAMES, VARIABLE

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def started(wanted: str | None) -> subprocess.CompletedProcess[str]:
    """`harnessctl --version`, and whether it has loaded the mistakes."""
    code = "import sys; sys.argv[1:] = ['--version']\nfrom harness.__main__ import main\ntry: sys.exit(main())\nfinally: print('harness.failpoints' in sys.modules)"
    environ = {k: v for k, v in os.environ.items() if k != VARIABLE} | ({VARIABLE: wanted} if wanted else {})
    return subprocess.run(
        [sys.executable, "-P", "-c", code],
        env=environ | {"PYTHONPATH": ROOT},
        capture_output=True,
        text=True,
        check=False,
    )


def test_nothing_is_broken_and_nothing_is_loaded_unless_asked_for() -> None:
    done = started(None)
    assert done.stdout.endswith("False\n")
    assert "BROKEN" not in done.stderr


def test_a_process_that_is_broken_on_purpose_says_so() -> None:
    every = ",".join(NAMES)
    done = started(every)
    assert done.stdout.endswith("True\n"), done.stderr
    assert f"BROKEN ON PURPOSE ({VARIABLE}={every})" in done.stderr


def test_a_mistake_that_does_not_exist_is_refused_by_name() -> None:
    done = started("no-such-thing")
    assert done.returncode != 0
    assert "there is no failpoint 'no-such-thing'" in done.stderr
    assert "Traceback" not in done.stderr
