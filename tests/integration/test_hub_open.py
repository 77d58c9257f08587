"""A hub is made whole or not at all, and what we cannot work on is refused with what to do about it."""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import ConfigError, TryAgainError
from harness.layout import Layout
from harness.logs import Event
from tests.hubs import Killed, commit, desk, git, person


def test_a_missing_hub_is_made_with_the_persons_target(layout: Layout, tmp_path: Path) -> None:
    up = person(tmp_path / "up")
    at = desk(layout, up)
    hub = at.open()
    assert hub.path == layout.hub("app")
    assert hub.target() == git(up, "rev-parse", "main")
    assert len(at.emitted(Event.HUB_CREATED)) == 1
    assert git(hub.path, "fsck", "--strict") == ""
    at.open()
    assert len(at.emitted(Event.HUB_CREATED)) == 1


def test_nothing_in_the_persons_repository_is_written_by_opening_and_fetching(
    layout: Layout, tmp_path: Path
) -> None:
    up = person(tmp_path / "up")
    before = _listing(up)
    at = desk(layout, up)
    at.open().refresh()
    assert _listing(up) == before


def _listing(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        os.path.join(base, name): (
            os.lstat(os.path.join(base, name)).st_mtime_ns,
            os.lstat(os.path.join(base, name)).st_ino,
        )
        for base, _, names in os.walk(folder)
        for name in names
    }


def test_commits_in_the_hub_are_fsynced_unless_durability_says_process(
    layout: Layout, tmp_path: Path
) -> None:
    at = desk(layout, person(tmp_path / "up"))
    at.durable = True
    hub = at.open()
    assert git(hub.path, "config", "core.fsync") == "committed,loose-object"
    at.durable = False
    hub = at.open()
    assert git(hub.path, "config", "core.fsync") == "none"
    assert at.emitted(Event.HUB_TAMPERED) == []


def test_tags_come_along_so_that_versions_can_be_derived(layout: Layout, tmp_path: Path) -> None:
    up = person(tmp_path / "up")
    git(up, "tag", "-a", "v1", "-m", "v1", "main")
    hub = desk(layout, up).open()
    assert git(hub.path, "describe", "main") == "v1"


@pytest.mark.parametrize("bare", [False, True])
def test_a_clone_a_bare_repository_and_a_linked_worktree_can_be_used(
    layout: Layout, tmp_path: Path, bare: bool
) -> None:
    up = person(tmp_path / "up", bare=bare)
    assert desk(layout, up).open().target() == git(up, "rev-parse", "main")


def test_a_linked_worktree_can_be_the_path(layout: Layout, tmp_path: Path) -> None:
    up = person(tmp_path / "up")
    git(up, "worktree", "add", "-q", "--detach", str(tmp_path / "linked"))
    assert desk(layout, tmp_path / "linked").open().target() == git(up, "rev-parse", "main")


def test_a_repository_with_sha256_is_followed(layout: Layout, tmp_path: Path) -> None:
    up = tmp_path / "up"
    up.mkdir()
    git(up, "init", "-q", "-b", "main", "--object-format=sha256")
    commit(up, "a", "a")
    at = desk(layout, up)
    hub = at.open()
    assert len(hub.target()) == 64
    tree = hub.prepare("agent-1", "x-1", 1, hub.target())
    hub.pin("x-1", 1, commit(tree.path, "b", "b"))
    lane = hub.swap_lane(hub.lane(), "e1", None)
    assert lane is not None
    assert at.open().lane() == lane


def test_a_url_is_fetched_like_a_path(layout: Layout, tmp_path: Path) -> None:
    up = person(tmp_path / "up")
    at = desk(layout, up)
    at.project = replace(at.project, path=f"file://{up}")
    hub = at.open()
    assert hub.target() == git(up, "rev-parse", "main")
    new = commit(up, "c", "c", branch="main")
    assert hub.refresh().target == new


def test_a_url_without_the_target_names_the_branches_that_are_there(layout: Layout, tmp_path: Path) -> None:
    up = person(tmp_path / "up")
    at = desk(layout, up)
    at.project = replace(at.project, path=f"file://{up}", target="master")
    with pytest.raises(ConfigError, match="main, work"):
        at.open()


def test_a_url_that_cannot_be_reached_may_be_tried_again(layout: Layout, tmp_path: Path) -> None:
    at = desk(layout, tmp_path / "none")
    at.project = replace(at.project, path=f"file://{tmp_path}/none")
    with pytest.raises(TryAgainError, match="git ls-remote"):
        at.open()


def test_a_missing_path_is_refused(layout: Layout, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"projects\.app\.path.*does not exist"):
        desk(layout, tmp_path / "none").open()


def test_a_folder_without_git_is_refused(layout: Layout, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    with pytest.raises(ConfigError, match="not a git repository"):
        desk(layout, tmp_path / "plain").open()


def test_a_folder_inside_of_a_repository_is_refused(layout: Layout, tmp_path: Path) -> None:
    up = person(tmp_path / "up")
    with pytest.raises(ConfigError, match="top of one"):
        desk(layout, up / "src").open()


def test_an_empty_repository_is_refused(layout: Layout, tmp_path: Path) -> None:
    (tmp_path / "up").mkdir()
    git(tmp_path / "up", "init", "-q")
    with pytest.raises(ConfigError, match="no commit yet"):
        desk(layout, tmp_path / "up").open()


def test_a_missing_target_names_the_branches_that_are_there(layout: Layout, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="main, work"):
        desk(layout, person(tmp_path / "up"), target="master").open()


def test_a_shallow_clone_is_refused(layout: Layout, tmp_path: Path) -> None:
    up = person(tmp_path / "up")
    commit(up, "c", "c", branch="main")
    git(tmp_path, "clone", "-q", "--depth=1", f"file://{up}", "shallow")
    with pytest.raises(ConfigError, match="fetch --unshallow"):
        desk(layout, tmp_path / "shallow").open()


def test_a_shallow_repository_behind_a_url_is_refused(layout: Layout, tmp_path: Path) -> None:
    up = person(tmp_path / "up")
    commit(up, "c", "c", branch="main")
    git(tmp_path, "clone", "-q", "--depth=1", "--bare", f"file://{up}", "shallow")
    at = desk(layout, up)
    at.project = replace(at.project, path=f"file://{tmp_path}/shallow")
    with pytest.raises(ConfigError, match="shallow"):
        at.open()
    assert not layout.hub("app").exists()


def test_submodules_are_refused(layout: Layout, tmp_path: Path) -> None:
    up = person(tmp_path / "up", {".gitmodules": '[submodule "x"]\n'})
    with pytest.raises(ConfigError, match="submodules"):
        desk(layout, up).open()
    assert not layout.hub("app").exists()


def test_files_in_lfs_are_refused_also_below_the_top(layout: Layout, tmp_path: Path) -> None:
    up = person(
        tmp_path / "up", {"a": "a", "art/.gitattributes": "*.png filter=lfs diff=lfs merge=lfs -text\n"}
    )
    with pytest.raises(ConfigError, match="git-lfs"):
        desk(layout, up).open()


def test_a_repository_inside_of_our_own_folders_is_refused(layout: Layout) -> None:
    up = person(layout.state / "up")
    with pytest.raises(ConfigError, match="our own state"):
        desk(layout, up).open()


def test_a_crash_at_any_point_of_making_a_hub_leaves_none_and_the_next_one_makes_it(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    up = person(tmp_path / "up")
    at = desk(layout, up)
    at.open()
    needed = len(at.probe.calls)
    for k in range(needed):
        shutil.rmtree(layout.hub("app"))
        shutil.rmtree(layout.hub("app").with_suffix(".ours"))
        crashing = desk(layout, up)

        def die(_: tuple[str, ...], crashing: object = crashing, k: int = k) -> None:
            if len(crashing.probe.calls) == k + 1:  # type: ignore[attr-defined]
                raise Killed

        crashing.probe.after = die
        with monkeypatch.context() as patch:  # a killed process does not clean up
            patch.setattr("harness.hub.creation.shutil.rmtree", lambda *_, **__: None)
            with pytest.raises(Killed):
                crashing.open()
        assert desk(layout, up).open().target() == git(up, "rev-parse", "main")
        assert [p.name for p in layout.hub("app").parent.iterdir() if p.name.endswith(".new")] == []


def test_a_changed_configuration_is_no_tampering_but_a_changed_hub_is(layout: Layout, tmp_path: Path) -> None:
    at = desk(layout, person(tmp_path / "up"))
    hub = at.open()
    at.project = replace(at.project, keep=("cache",))
    at.open()
    assert b"/cache\n" in (hub.path / "info/exclude").read_bytes()
    assert at.emitted(Event.HUB_TAMPERED) == []
    (hub.path / "config").write_text("[core]\n\tbare = true\n")
    at.project = replace(at.project, keep=())
    at.open()
    assert at.emitted(Event.HUB_TAMPERED) == [{"project": "app", "files": "config"}]


def test_a_hub_restored_without_our_notes_is_taken_into_use_again(layout: Layout, tmp_path: Path) -> None:
    at = desk(layout, person(tmp_path / "up"))
    hub = at.open()
    shutil.rmtree(hub.path.with_suffix(".ours"))
    assert at.open().target() == hub.target()


def fake_git(folder: Path, text: str) -> str:
    folder.mkdir()
    (folder / "git").write_text(text)
    (folder / "git").chmod(0o755)
    return str(folder)


def test_a_git_that_is_too_old_is_refused(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = desk(layout, person(tmp_path / "up"))
    monkeypatch.setenv("PATH", fake_git(tmp_path / "bin", "#!/bin/sh\necho git version 2.30.2\n"))
    with pytest.raises(ConfigError, match=r"2\.30\.2 is too old"):
        at.open()


def test_a_missing_git_is_said(layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at = desk(layout, person(tmp_path / "up"))
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(ConfigError, match="install git"):
        at.open()


@pytest.mark.parametrize("text", ['\ufeff[submodule "x"]\n\tpath = x\n', '[core][Submodule "x"]\n'])
def test_submodules_are_found_however_they_are_written(layout: Layout, tmp_path: Path, text: str) -> None:
    up = person(tmp_path / "up", {"a.txt": "one\n", ".gitmodules": text})
    with pytest.raises(ConfigError, match="submodules"):
        desk(layout, up).open()


def test_a_file_is_no_repository(layout: Layout, tmp_path: Path) -> None:
    (tmp_path / "up").write_text("")
    with pytest.raises(ConfigError, match="not a git repository"):
        desk(layout, tmp_path / "up").open()


def test_a_disk_that_is_full_keeps_no_hub_from_being_opened(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = desk(layout, person(tmp_path / "up"))

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("harness.hub.refusals.replace_file", full)
    assert at.open().target()
