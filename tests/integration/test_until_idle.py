"""`run --until-idle`: when it ends, and what its exit code says."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.daemons import daemon, git
from tests.support import until


def test_told_to_go_while_there_is_work_is_not_said_to_be_all_done(tmp_path: Path) -> None:
    with daemon(tmp_path) as d:
        process = d.start(idle=True)
        d.drop("slow", {"prompt": "sleep 9999"})
        d.until_running("slow")
        process.send_signal(signal.SIGTERM)
        until(lambda: (r := d.coordinator()) and r.state == "draining", 20)
        process.send_signal(signal.SIGTERM)
        until(lambda: process.poll() is not None, 40, what=d.tail())
        assert process.returncode == 75


def test_what_a_killed_take_left_behind_keeps_nobody_waiting(tmp_path: Path) -> None:
    """An empty incoming/<U> is kept for an hour, in case that its taker lives."""
    with daemon(tmp_path) as d:
        (d.layout.queue / "incoming" / "a-abcdefghij").mkdir()
        assert d.run_until_idle() == 0


def test_an_item_whose_project_is_gone_needs_a_person_and_keeps_nobody_waiting(tmp_path: Path) -> None:
    with daemon(tmp_path) as d:
        (d.layout.control / "pause").touch()
        process = d.start()
        d.drop("a", {"prompt": "true", "commit": "none"})
        d.until_state("a", "ready")
        process.send_signal(signal.SIGTERM)
        until(lambda: process.poll() is not None, 40, what=d.tail())
        (d.layout.control / "pause").unlink()
        d.config["projects"]["other"] = d.config["projects"].pop("app")
        d.write_config()
        assert d.run_until_idle() == 1
        assert d.state("a") == "ready"


def test_merges_that_the_person_does_not_take_are_not_all_done(tmp_path: Path) -> None:
    with daemon(tmp_path) as d:
        git(d.app, "switch", "-q", "main")
        d.drop("a", {"prompt": "echo x > a"})
        assert d.run_until_idle() == 1
        assert d.state("a") == "merged"
        assert d.merges() == []
        (said,) = d.events("work_left")
        assert "not published" in said["reason"]
        assert not d.ours()
        git(d.app, "switch", "-q", "work")
        assert d.run_until_idle() == 0
        assert len(d.merges()) == 1


@pytest.mark.parametrize("name", ["pause", "pause.project.app"])
def test_what_is_paused_needs_a_person_and_keeps_nobody_waiting(tmp_path: Path, name: str) -> None:
    with daemon(tmp_path) as d:
        (d.layout.control / name).touch()
        d.drop("a", {"prompt": "true", "commit": "none"})
        assert d.run_until_idle() == 1
        assert d.state("a") == "ready"
        (said,) = d.events("work_left")
        assert "harnessctl resume" in said["reason"]
        (d.layout.control / name).unlink()
        assert d.run_until_idle() == 0
