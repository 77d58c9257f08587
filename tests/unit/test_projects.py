"""Which projects can be worked on, and which of them owe the person merges, as a coordinator that starts finds it."""

from __future__ import annotations

import dataclasses
import errno
import json
import threading
from pathlib import Path
from unittest.mock import Mock

import pytest

from harness.clock import SystemClock
from harness.config import Config, Project, load
from harness.coordinator.projects import AGAIN_S, PATIENCE_S, SOON_S, Projects
from harness.errors import ConfigError, TryAgainError
from harness.events import EventStream
from harness.hub import GitCommandError, GitInterrupted, Hub, Published
from harness.layout import Layout
from harness.runner import Ended, EndReason
from tests.hubs import Desk, desk, git, merge, person, submit
from tests.support import FakeClock, until


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
    assert projects.looking == {"app"}
    heard(projects)
    assert projects.unusable == {}
    return set(projects.owing)


def heard(projects: Projects) -> None:
    """What its threads have to say."""

    def hear() -> bool:
        projects.hear()
        return not projects.looking | projects.making

    until(hear, 20, what="a thread has looked at the hub")


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
    assert projects.unusable
    heard(projects)
    assert projects.unusable == {}


def interrupted(why: EndReason) -> GitInterrupted:
    return GitInterrupted(("fetch",), Ended(reason=why), where=Path("/hub"))


def test_of_two_that_cannot_be_used_only_the_one_that_is_hoped_for_is_tried_soon(
    layout: Layout, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, tried = FakeClock(), []
    said = json.loads(layout.config.read_text())
    said["projects"]["lib"] = said["projects"]["app"] | {"path": str(person(tmp_path / "lib"))}
    layout.config.write_text(json.dumps(said))
    config = load(layout.config)

    def refuse(layout: Layout, project: Project, **more: object) -> Hub:
        tried.append(project.name)
        raise ConfigError("gone") if project.name == "lib" else TryAgainError("its lock is held")

    monkeypatch.setattr(Hub, "open", refuse)
    projects = Projects(layout, clock, EventStream(layout, clock, "coordinator"))
    projects.check(config)
    clock.advance(SOON_S + 1)
    projects.check_again(config)
    assert tried == ["app", "lib", "app"]
    clock.advance(AGAIN_S + 1)
    projects.check_again(config)
    assert tried == ["app", "lib", "app", "app", "lib"]


def test_a_repository_of_the_persons_that_cannot_be_read_does_not_hold_the_loop_and_is_said(
    layout: Layout, config: Config, at: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, go = FakeClock(), threading.Event()

    def refresh(hub: Hub) -> None:
        assert threading.current_thread() is not threading.main_thread()
        assert go.wait(20)
        raise ConfigError("cannot be read")

    at.open()
    projects = Projects(layout, clock, EventStream(layout, clock, "coordinator"))
    with monkeypatch.context() as broken:
        broken.setattr(Hub, "refresh", refresh)
        projects.check(config)
        assert projects.unusable == {}
        go.set()
        heard(projects)
        assert projects.unusable == {"app": "cannot be read"}
        clock.advance(AGAIN_S + 1)
        projects.check_again(config)
        assert projects.unusable == {"app": "cannot be read"}, "until it is known to be well"
        heard(projects)
        assert projects.unusable == {"app": "cannot be read"}
    clock.advance(AGAIN_S + 1)
    projects.check_again(config)
    heard(projects)
    assert projects.unusable == {}


def test_a_configuration_that_changes_while_a_thread_looks_is_not_forgotten(
    layout: Layout, config: Config, at: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, go = FakeClock(), threading.Event()
    monkeypatch.setattr(Hub, "refresh", lambda hub: go.wait(20))
    projects = Projects(layout, clock, EventStream(layout, clock, "coordinator"))
    projects.check(config)
    said = json.loads(layout.config.read_text())
    said["projects"]["app"]["target"] = "elsewhere"
    layout.config.write_text(json.dumps(said))
    changed = load(layout.config)
    projects.check(changed)
    assert projects.looking == {"app"}
    go.set()
    heard(projects)
    assert projects.soon() == {"app"}
    projects.check_again(changed)
    heard(projects)
    assert projects.again == set()
    assert "elsewhere" in projects.unusable["app"]


def test_a_mistake_of_ours_in_a_thread_is_not_kept_there(
    layout: Layout, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    projects = Projects(layout, FakeClock(), EventStream(layout, FakeClock(), "coordinator"))
    monkeypatch.setattr(Hub, "unpublished", Mock(side_effect=LookupError("ours")))
    projects.check(config)
    with pytest.raises(LookupError, match="ours"):
        heard(projects)


def test_a_mistake_of_ours_in_a_first_fetch_is_not_kept_in_its_thread(
    layout: Layout, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = dataclasses.replace(config.projects["app"], path="https://127.0.0.1:1/app.git")
    clock = SystemClock()
    projects = Projects(layout, clock, EventStream(layout, clock, "coordinator"))
    monkeypatch.setattr(Hub, "open", Mock(side_effect=ZeroDivisionError("ours")))
    projects.check(dataclasses.replace(config, projects={"app": far}))
    assert projects.making == {"app"}
    with pytest.raises(ZeroDivisionError, match="ours"):
        heard(projects)
    assert projects.making == set()


def test_what_is_hoped_for_is_tried_soon_and_what_a_person_must_do_now_and_then(
    layout: Layout, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock()
    for fault, wait_s in (
        (OSError(errno.ENOSPC, "full"), SOON_S),
        (TryAgainError("its lock is held"), SOON_S),
        (OSError(errno.EACCES, "denied"), AGAIN_S),
        (ConfigError("no repository"), AGAIN_S),
        (interrupted(EndReason.TIMED_OUT), AGAIN_S),
        (interrupted(EndReason.STOPPED), SOON_S),
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
        heard(projects)
        assert projects.unusable == {}
        assert projects.soon() == set()
