"""What an attempt's end says when our own side fails. Real attempts are in tests/integration."""

from __future__ import annotations

import errno
from types import SimpleNamespace
from typing import Any

import pytest

from harness.config import load
from harness.errors import GitError
from harness.events import EventStream
from harness.limits import Limits
from harness.model import Outcome
from harness.worker.attempt import AttemptRun
from harness.worker.result import Broken
from tests.stores import World

CONFIG = """\
v: 1
projects: {app: {path: ../app}}
agents: {claude: {adapter: command, argv: [claude]}}
"""


class BrokenHub:
    def __init__(self, error: Exception) -> None:
        self.error = error

    def refresh(self) -> None:
        raise self.error


def attempt(world: World, error: Exception, broken: str | None = None) -> AttemptRun:
    world.layout.config.write_text(CONFIG)
    config = load(world.layout.config)
    hub: Any = BrokenHub(error)
    runner: Any = SimpleNamespace(away_s=0.0)
    return AttemptRun(
        layout=world.layout,
        config=config,
        clock=world.clock,
        runner=runner,
        events=EventStream(world.layout, world.clock, "agent-1"),
        slot="agent-1",
        owned=world.claim(world.add(id="a")),
        project=config.projects["app"],
        hub=hub,
        environ={},
        limits=Limits(world.layout, world.clock),
        claims={},
        stage=lambda *_: None,
        broken=lambda: broken,
    )


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device", "/there"), GitError("git: exit 128")], ids=str
)
def test_what_our_side_cannot_do_now_costs_no_attempt(world: World, error: Exception) -> None:
    result = attempt(world, error).run()
    assert result.outcome is Outcome.RELEASED
    assert result.not_before
    assert result.not_before > world.clock.wall()


def test_an_error_that_nobody_foresaw_ends_the_process(world: World) -> None:
    with pytest.raises(OSError, match="Input/output"):
        attempt(world, OSError(errno.EIO, "Input/output error")).run()


def test_an_attempt_that_was_decided_meanwhile_says_nothing(world: World) -> None:
    with pytest.raises(Broken):
        attempt(world, OSError(errno.ENOSPC, "No space left on device"), broken="held by me").run()
