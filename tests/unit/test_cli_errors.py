"""What goes wrong has its exit code, and says what, where, and what to do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from harness import status
from harness.errors import ConflictError
from harness.layout import Layout
from tests.cli import ctl
from tests.stores import World
from tests.support import environment


def raises(error: BaseException) -> object:
    def collect(*_: object) -> NoReturn:
        raise error

    return collect


def test_without_a_root_the_exit_code_is_3_and_init_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = ctl(None, "status")
    assert said.code == 3
    assert "harnessctl init" in said.err
    assert said.out == ""


def test_the_root_may_be_named_before_and_after_the_verb(world: World) -> None:
    root = str(world.layout.root)
    assert ctl(None, "--root", root, "items").code == 0
    assert ctl(None, "items", "--root", root).code == 0
    assert ctl(None, "items", HARNESS_ROOT=root).code == 0


def test_an_unknown_item_is_3_and_an_ambiguous_one_4(world: World) -> None:
    world.add(id="fix-a")
    world.add(id="fix-b")
    root = world.layout.root
    assert ctl(root, "show", "nothing").code == 3
    said = ctl(root, "show", "fix")
    assert said.code == 4
    assert "not unique" in said.err


def test_a_broken_configuration_is_78_with_line_and_remedy(layout: Layout) -> None:
    layout.config.write_text("v: 1\nworker: 3\n")
    said = ctl(layout.root, "config", "check")
    assert said.code == 78
    assert "config.yaml:2" in said.err
    assert "workers" in said.err


def test_a_root_without_a_store_says_how_to_make_one(layout: Layout) -> None:
    said = ctl(layout.root, "items")
    assert said.code == 78
    assert "harnessctl init" in said.err


def test_wrong_options_are_2(world: World) -> None:
    assert ctl(world.layout.root, "items", "--state", "lost").code == 2
    assert ctl(world.layout.root, "items", "--label", "x").code == 2


def test_an_error_of_ours_ends_with_its_exit_code(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        status, "collect", raises(ConflictError("two of them", where="here", remedy="end one"))
    )
    said = ctl(layout.root, "status")
    assert said.code == 4
    assert said.err == "harnessctl: here: two of them\n  end one\n"


def test_a_bug_says_how_to_report_it_and_shows_its_traceback_only_with_v(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "collect", raises(ZeroDivisionError("oops")))
    said = ctl(layout.root, "status")
    assert said.code == 1
    assert "report it" in said.err
    assert "Traceback" not in said.err
    assert "Traceback" in ctl(layout.root, "-v", "status").err


def test_a_file_of_another_user_is_named_without_a_traceback(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "collect", raises(PermissionError(13, "Permission denied", "/x/queue")))
    said = ctl(layout.root, "status")
    assert said.code == 1
    assert "/x/queue: Permission denied" in said.err
    assert "ls -ld /x" in said.err


def test_a_name_that_is_not_there_is_not_blamed_on_the_disk(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for said in (
        ctl(None, "init", "/proc/nowhere/root"),
        ctl(None, "init", str(tmp_path / "file/root")),
        ctl(None, "init", str(tmp_path / "file")),
    ):
        assert said.code == 1
        assert "disk" not in said.err


@pytest.mark.parametrize(
    ("root", "says"), [("nowhere", "names no folder\n  see its spelling, or "), ("file", "names a file\n")]
)
def test_a_root_that_is_named_wrongly_says_how_to_do_without_that_name(
    tmp_path: Path, root: str, says: str
) -> None:
    (tmp_path / "file").write_text("")
    said = ctl(None, "--root", str(tmp_path / root), "items")
    assert said.code == 3
    assert says in said.err
    assert "unset HARNESS_ROOT" in ctl(None, "items", HARNESS_ROOT=str(tmp_path / root)).err


def test_a_store_that_lacks_a_folder_is_not_shown_as_one_without_items(world: World) -> None:
    world.layout.queue.joinpath("open").rename(world.layout.root / "lost")
    for verb in (["items"], ["show", "x"], ["wait", "x"], ["pause"]):
        said = ctl(world.layout.root, *verb)
        assert said.code == 1
        assert "lacks open" in said.err
    assert ctl(world.layout.root, "fsck", "--repair").code == 0
    assert ctl(world.layout.root, "items").code == 0


def test_a_filter_that_matches_nothing_is_said(world: World) -> None:
    said = ctl(world.layout.root, "retry", "--state", "parked", "--yes")
    assert (said.code, said.out) == (0, "")
    assert "no item matches" in said.err


def test_an_interrupt_is_130(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "collect", raises(KeyboardInterrupt()))
    assert ctl(layout.root, "status").code == 130


def test_a_reader_that_goes_away_is_no_error(world: World) -> None:
    for k in range(300):
        world.disk.do_hint(f"x{k}", 5)
    argv = [
        sys.executable,
        "-P",
        "-m",
        "harness",
        "--root",
        str(world.layout.root),
        "config",
        "show",
        "--origin",
    ]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        argv, env=environment(), stdout=writer, stderr=subprocess.PIPE, timeout=60, check=False
    )
    os.close(writer)
    assert b"Traceback" not in done.stderr
    assert b"unexpected" not in done.stderr
