"""Which projects can be worked on, and which of them owe the person merges, as a coordinator that starts finds it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.clock import SystemClock
from harness.config import Config, load
from harness.coordinator.projects import Projects
from harness.events import EventStream
from harness.hub import Published
from harness.layout import Layout
from tests.hubs import Desk, desk, git, merge, person, submit


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
