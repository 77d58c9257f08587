"""Stopping at once, and what a cancelled item's agent is told: nothing goes on that a person has ended."""

from __future__ import annotations

from pathlib import Path

from tests.daemons import daemon
from tests.support import until


def test_a_stop_at_once_releases_the_attempt_long_before_anything_is_killed(tmp_path: Path) -> None:
    """The coordinator drains and stops in one tick: two TERMs that a worker cannot tell apart."""
    with daemon(tmp_path, workers=1) as d:
        process = d.start()
        d.drop("slow", {"prompt": "sleep 9999"})
        d.until_running("slow")
        (d.layout.control / "stop").touch()
        until(lambda: process.poll() is not None, 60, what=d.tail())
        seen = d.items()["slow"]
        assert [a.end.outcome.value for a in seen.attempts if a.end] == ["released"]
        assert seen.state == "ready"
        assert not d.ours()
