"""The folders of a store, its FORMAT, and the self-test of the file system."""

from __future__ import annotations

import errno
import json
import os
import signal
from pathlib import Path

import pytest

from harness.errors import ConfigError, StoreError, TryAgainError
from harness.layout import STATE_FOLDERS, STORE_FOLDERS, Layout
from harness.store import setup
from harness.store.disk import is_locked
from harness.store.setup import check_format, lease_works, make_folders, open_store, self_test


def test_a_store_is_made_private_and_its_drop_box_is_not(layout: Layout) -> None:
    layout.queue.rmdir()
    open_store(layout)
    assert layout.queue.stat().st_mode & 0o7777 == 0o1770
    assert {(layout.queue / x).stat().st_mode & 0o7777 for x in STORE_FOLDERS} == {0o700}
    assert all((layout.state / x).is_dir() for x in STATE_FOLDERS)
    assert os.listdir(layout.queue / "tmp") == []
    assert signal.getsignal(signal.SIGIO) is signal.SIG_IGN


def test_opening_it_again_changes_nothing(layout: Layout) -> None:
    open_store(layout)
    (layout.queue / "open").chmod(0o750)
    before = (layout.queue / "FORMAT").stat().st_ino
    open_store(layout)
    assert (layout.queue / "FORMAT").stat().st_ino == before
    assert (layout.queue / "open").stat().st_mode & 0o777 == 0o750


def test_a_root_without_a_store_says_what_to_do(layout: Layout) -> None:
    with pytest.raises(ConfigError, match="harnessctl init"):
        check_format(layout)


def test_folders_that_a_killed_start_made_are_made_durable_by_the_next(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(setup, "fsync_path", lambda path: synced.append(Path(path)))
    make_folders(layout)
    synced.clear()
    make_folders(layout)
    assert {layout.root, layout.queue, layout.state} <= set(synced)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"v": 1, "min_reader": "new"}'])
def test_a_format_that_cannot_be_read_is_not_guessed_at(layout: Layout, content: str) -> None:
    make_folders(layout)
    (layout.queue / "FORMAT").write_text(content)
    with pytest.raises(StoreError, match="backup"):
        check_format(layout)


def test_a_newer_store_is_refused_and_a_newer_minor_is_not(layout: Layout) -> None:
    make_folders(layout)
    (layout.queue / "FORMAT").write_text(json.dumps({"v": 7, "min_reader": 1, "new": True}))
    check_format(layout)
    (layout.queue / "FORMAT").write_text(json.dumps({"v": 7, "min_reader": 2}))
    with pytest.raises(StoreError, match="upgrade"):
        open_store(layout)


def test_a_folder_on_another_file_system_is_refused(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    if not os.path.isdir("/proc/self"):
        pytest.skip("needs /proc as another file system")
    make_folders(layout)
    (layout.queue / "batches").rmdir()
    (layout.queue / "batches").symlink_to("/proc/self")
    with pytest.raises(ConfigError, match="another file system"):
        open_store(layout)


@pytest.mark.parametrize("fault", ["copy", "overwrite", "no link", "no lock"])
def test_a_file_system_that_cannot_carry_the_protocol_is_refused(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    make_folders(layout)
    real = os.link

    def link(source: str, target: str) -> None:
        match fault:
            case "copy":
                with open(target, "xb"):
                    pass
            case "overwrite":
                if not os.path.exists(target):
                    real(source, target)
            case _:
                raise OSError(errno.EPERM, "Operation not permitted")

    if fault == "no lock":
        monkeypatch.setattr(setup, "is_locked", lambda fd: False)
    else:
        monkeypatch.setattr(os, "link", link)
    with pytest.raises(ConfigError, match="cannot carry the queue") as error:
        self_test(layout)
    assert error.value.remedy
    assert os.listdir(layout.queue / "tmp") == []


def test_whether_leases_work_is_said_and_nothing_is_left(layout: Layout) -> None:
    make_folders(layout)
    assert lease_works(layout) in (True, False)
    assert os.listdir(layout.queue / "tmp") == []


def test_no_python_file_lives_below_the_queue() -> None:
    assert not any(name.endswith(".py") for name in (*STORE_FOLDERS, *STATE_FOLDERS))


def test_a_full_disk_says_nothing_about_what_the_file_system_can_do(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """78 means "the configuration": a slot whose worker says so is not started again before a person acts."""

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    make_folders(layout)
    monkeypatch.setattr(os, "link", full)
    with pytest.raises(TryAgainError) as caught:
        self_test(layout)
    assert caught.value.exit_code == 75
    assert os.listdir(layout.queue / "tmp") == []


def test_workers_that_start_together_do_not_meet_in_each_others_self_test(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that failed would exit with 78, and its slot would never be started again."""
    make_folders(layout)
    others: list[int] = []

    def while_the_other_tests(fd: int) -> bool:
        if not others:
            others.append(fd)
            self_test(layout)
        return is_locked(fd)

    monkeypatch.setattr(setup, "is_locked", while_the_other_tests)
    self_test(layout)
    assert others
    assert os.listdir(layout.queue / "tmp") == []


def test_what_a_start_that_was_killed_left_behind_fails_no_other(layout: Layout) -> None:
    make_folders(layout)
    (layout.queue / "tmp" / "selftest.link").touch()
    self_test(layout)
