"""The hub's own files are put back, and what is not ours is removed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from harness.errors import GitError
from harness.hub.guard import Guard
from harness.logs import Event

CONTENTS = {"config": b"[core]\n", "HEAD": b"ref: refs/heads/main\n", "info/exclude": b"/.env\n"}


@pytest.fixture
def events() -> list[tuple[Event, dict[str, Any]]]:
    return []


@pytest.fixture
def guard(tmp_path: Path, events: list[tuple[Event, dict[str, Any]]]) -> Guard:
    for name in ("objects/info", "refs", "hooks", "worktrees/agent-1"):
        (tmp_path / "hub" / name).mkdir(parents=True)
    made = Guard(
        repository=tmp_path / "hub",
        copies=tmp_path / "copies",
        emit=lambda event, **values: events.append((event, values)),
        project="app",
    )
    made.install(CONTENTS)
    return made


def test_an_untouched_hub_is_left_alone_and_not_read_again(
    guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert guard.check() == ()
    monkeypatch.setattr("harness.hub.guard._read", lambda path: pytest.fail(f"read {path}"))
    assert guard.check() == ()


@pytest.mark.parametrize("name", CONTENTS)
def test_a_changed_file_is_restored_and_reported(
    guard: Guard, name: str, events: list[tuple[Event, dict[str, Any]]]
) -> None:
    (guard.repository / name).write_bytes(b'[filter "x"]\nclean = evil\n')
    assert guard.check() == (name,)
    assert (guard.repository / name).read_bytes() == CONTENTS[name]
    assert events == [(Event.HUB_TAMPERED, {"project": "app", "files": name})]
    assert guard.check() == ()


def test_a_change_that_keeps_size_and_mtime_is_seen(guard: Guard) -> None:
    guard.check()
    file = guard.repository / "config"
    before = file.stat()
    file.write_bytes(b"[xore]\n")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert guard.check() == ("config",)


def test_a_file_replaced_by_a_link_or_a_folder_is_restored(guard: Guard, tmp_path: Path) -> None:
    (tmp_path / "evil").write_bytes(CONTENTS["config"])
    config = guard.repository / "config"
    config.unlink()
    config.symlink_to(tmp_path / "evil")
    head = guard.repository / "HEAD"
    head.unlink()
    (head / "x").mkdir(parents=True)
    assert guard.check() == ("config", "HEAD")
    assert not config.is_symlink()
    assert head.read_bytes() == CONTENTS["HEAD"]


@pytest.mark.parametrize(
    "name",
    [
        "config.worktree",
        "commondir",
        "shallow",
        "objects/info/alternates",
        "objects/info/commit-graph",
        "objects/info/commit-graphs/commit-graph-chain",
        "refs/replace/x",
        "hooks/pre-commit",
        "info/attributes",
        "info/grafts",
        "worktrees/agent-1/config.worktree",
    ],
)
def test_what_is_not_ours_is_removed(guard: Guard, name: str) -> None:
    path = guard.repository / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")
    assert len(guard.check()) == 1
    assert not path.exists()


@pytest.mark.parametrize("name", ["pipe", "info/pipe", "info/commit-graph", "pack/pipe"])
def test_a_pipe_among_the_objects_is_removed(guard: Guard, name: str) -> None:
    """Agents' git would wait for who writes into it."""
    path = guard.repository / "objects" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)
    assert guard.check() == (f"objects/{name}",)
    assert not path.exists()


def test_a_folder_of_hooks_elsewhere_is_replaced_by_an_empty_one(guard: Guard, tmp_path: Path) -> None:
    elsewhere = tmp_path / "hooks"
    elsewhere.mkdir()
    (elsewhere / "pre-commit").write_text("#!/bin/sh\n")
    (guard.repository / "hooks").rmdir()
    (guard.repository / "hooks").symlink_to(elsewhere)
    assert guard.check() == ("hooks",)
    assert os.listdir(guard.repository / "hooks") == []
    assert (elsewhere / "pre-commit").exists()


def test_a_missing_folder_of_hooks_is_no_tampering(guard: Guard) -> None:
    (guard.repository / "hooks").rmdir()
    assert guard.check() == ()


def test_a_lost_copy_is_said_and_not_guessed(guard: Guard) -> None:
    (guard.copies / "config").unlink()
    with pytest.raises(GitError, match="our copy"):
        guard.check()


def test_a_hub_without_objects_is_not_used(guard: Guard) -> None:
    (guard.repository / "objects/info").rmdir()
    (guard.repository / "objects").rmdir()
    with pytest.raises(GitError, match="objects"):
        guard.check()


def test_two_processes_with_different_settings_agree_on_the_last_one_installed(guard: Guard) -> None:
    other = Guard(repository=guard.repository, copies=guard.copies, emit=guard.emit, project="app")
    other.install({**CONTENTS, "config": b"[core]\n\tfsync = none\n"})
    assert guard.check() == ()
    assert (guard.repository / "config").read_bytes() == b"[core]\n\tfsync = none\n"
