"""Which projects can be worked on, and which of them owe the person merges, as a coordinator that starts finds it."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from unittest.mock import Mock

import pytest

from harness.clock import SystemClock
from harness.config import Config, load
from harness.coordinator.projects import AGAIN_S, PATIENCE_S, SOON_S, Projects
from harness.errors import ConfigError, TryAgainError
from harness.events import EventStream
from harness.hub import GitCommandError, Hub, Published
from harness.layout import Layout
from harness.runner import Ended, EndReason
from tests.hubs import Desk, desk, git, merge, person, submit
from tests.support import FakeClock


@pytest.fixture
def at(layout: Layout, tmp_path: Path) -> Desk:
    return desk(layout, person(tmp_path / "app"))


@pytest.fixture
def config(layout: Layout, at: Desk) -> Config:
    said = {
        "v": 1,
        "durability": "process",
        "projects": {"app": {"path": str(at.upstream), "agent": "shell"}},
        "agents": {"shell": {"adapter": "command", "argv": ["sh", "{prompt_file}"]}},
        "sandbox": "none",
    }
    layout.config.write_text(json.dumps(said))
    return load(layout.config)


def owing(layout: Layout, config: Config) -> set[str]:
    clock = SystemClock()
    projects = Projects(layout, clock, EventStream(layout, clock, "coordinator"))
    projects.check(config)
    assert projects.unusable == {}
    return projects.owing


def test_a_push_that_a_power_loss_took_there_is_owed_again(layout: Layout, config: Config, at: Desk) -> None:
    """The hub had noted it as seen there: nobody would have looked before the next item."""
    hub = at.open()
    before = hub.target()
    merge(hub, "x-1", 1, submit(hub, "x-1"))
    assert owing(layout, config) == {"app"}
    assert isinstance(hub.publish(), Published)
    assert owing(layout, config) == set()
    git(at.upstream, "update-ref", "refs/heads/main", before)
    assert hub.unpublished() == []
    assert owing(layout, config) == {"app"}


def killed(*args: object, **more: object) -> Hub:
    ended = Ended(reason=EndReason.EXITED, signal=9)
    raise GitCommandError(("grep",), ended, where=Path("/hub"))


def test_a_git_that_was_killed_says_nothing_about_its_project_which_is_opened_again_soon(
    layout: Layout, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel kills for memory. A coordinator that took it for a fault of config.yaml would end with 78, after which
    systemd starts no other."""
    clock = FakeClock()
    projects = Projects(layout, clock, EventStream(layout, clock, "coordinator"))
    with monkeypatch.context() as broken:
        broken.setattr(Hub, "open", killed)
        projects.check(config)
        assert "signal 9" in projects.unusable["app"]
        assert projects.soon() == {"app"}
        clock.advance(PATIENCE_S + 1)
        assert projects.soon() == set()
        projects.check_again(config)
        assert projects.soon() == set()
    clock.advance(AGAIN_S + 1)
    projects.check_again(config)
    assert projects.unusable == {}


def test_what_is_hoped_for_is_tried_soon_and_what_a_person_must_do_now_and_then(
    layout: Layout, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock()
    for fault, wait_s in (
        (OSError(errno.ENOSPC, "full"), SOON_S),
        (TryAgainError("its lock is held"), SOON_S),
        (OSError(errno.EACCES, "denied"), AGAIN_S),
        (ConfigError("no repository"), AGAIN_S),
    ):
        projects = Projects(layout, clock, EventStream(layout, clock, "coordinator"))
        with monkeypatch.context() as broken:
            broken.setattr(Hub, "open", Mock(side_effect=fault))
            projects.check(config)
        assert projects.soon() == ({"app"} if wait_s == SOON_S else set())
        clock.advance(wait_s - 1)
        projects.check_again(config)
        assert projects.unusable
        clock.advance(2)
        projects.check_again(config)
        assert projects.unusable == {}
        assert projects.soon() == set()
