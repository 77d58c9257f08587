"""Refs read as files give what git gives."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from harness.hub.git import transaction
from harness.hub.refs import Refs, is_sha, zero

A, B = "a" * 40, "b" * 40


def refs(tmp_path: Path, packed: str = "", **loose: str) -> Refs:
    if packed:
        (tmp_path / "packed-refs").write_text("# pack-refs with: peeled fully-peeled sorted\n" + packed)
    for name, value in loose.items():
        path = tmp_path / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(value)
    return Refs(repository=tmp_path)


def test_a_loose_ref_wins_over_a_packed_one(tmp_path: Path) -> None:
    seen = refs(tmp_path, packed=f"{A} refs/heads/main\n", refs__heads__main=f"{B}\n")
    assert seen.read("refs/heads/main") == B


def test_a_packed_ref_is_found_by_its_whole_name(tmp_path: Path) -> None:
    seen = refs(tmp_path, packed=f"{A} refs/heads/main\n^{B}\n{B} refs/heads/mainly\n")
    assert seen.read("refs/heads/main") == A
    assert seen.read("refs/heads/mai") is None


def test_a_symbolic_ref_counts_as_none(tmp_path: Path) -> None:
    seen = refs(tmp_path, refs__heads__x="ref: refs/heads/main\n", refs__heads__main=A)
    assert seen.read("refs/heads/x") is None
    assert seen.symbolic("refs/heads/x")
    assert not seen.symbolic("refs/heads/main")


def test_garbage_and_folders_are_no_refs(tmp_path: Path) -> None:
    seen = refs(tmp_path, refs__heads__x="torn", refs__heads__y__z=A)
    assert seen.read("refs/heads/x") is None
    assert seen.read("refs/heads/y") is None
    assert seen.read("refs/heads/none") is None


def test_a_ref_that_is_packed_while_we_look_is_found(tmp_path: Path) -> None:
    seen = refs(tmp_path, packed=f"{A} refs/heads/main\n")

    class Moving(Refs):
        def _loose(self, name: str) -> tuple[bool, str | None]:
            return False, None

    assert Moving(repository=tmp_path).read("refs/heads/main") == A
    assert seen.read("refs/heads/main") == A


def test_below_lists_loose_and_packed_refs_without_locks_and_neighbours(tmp_path: Path) -> None:
    seen = refs(
        tmp_path,
        packed=f"{A} refs/heads/h/1\n{A} refs/heads/h2/1\n",
        refs__heads__h__1=B,
        refs__heads__h__2__deep=A,
    )
    (tmp_path / "refs/heads/h/1.lock").write_text(A)
    assert seen.below("refs/heads/h") == {"refs/heads/h/1": B, "refs/heads/h/2/deep": A}
    assert refs(tmp_path / "empty").below("refs/x") == {}


def test_names_of_objects_have_the_length_of_their_hash() -> None:
    assert is_sha(A)
    assert is_sha("c" * 64)
    assert not is_sha("a" * 41)
    assert not is_sha("g" * 40)
    assert zero("c" * 64) == "0" * 64


@pytest.mark.parametrize(
    "name",
    [
        "x\nupdate refs/heads/main " + A,
        "a b",
        "a\x7f",
        "a~1",
        "a^",
        "a:b",
        "a?",
        "a*",
        "a[",
        "a\\b",
        "a..b",
        "a@{1}",
        ".a",
        "a.lock",
        "a.lock/b",
        "a.",
    ],
)
def test_a_file_whose_name_git_refuses_is_no_ref(tmp_path: Path, name: str) -> None:
    path = tmp_path / "refs/heads" / name
    path.parent.mkdir(parents=True)
    path.write_text(A)
    seen = Refs(repository=tmp_path)
    assert seen.below("refs") == {}
    assert seen.read(f"refs/heads/{name}") is None
    assert subprocess.run(["git", "check-ref-format", f"refs/heads/{name}"], check=False).returncode


@pytest.mark.parametrize("name", ["\u2028", "a\u00a0b", "\udcff", "-x", "@", "ä"])
def test_a_strange_name_that_git_accepts_is_one(tmp_path: Path, name: str) -> None:
    path = tmp_path / "refs/heads" / name
    path.parent.mkdir(parents=True)
    path.write_text(A)
    assert Refs(repository=tmp_path).below("refs") == {f"refs/heads/{name}": A}
    assert not subprocess.run(["git", "check-ref-format", f"refs/heads/{name}"], check=False).returncode
    assert os.fsencode(name) in transaction([f"delete refs/heads/{name}"])


def test_what_is_no_small_file_is_no_ref_and_holds_nobody_up(tmp_path: Path) -> None:
    heads = tmp_path / "refs/heads"
    heads.mkdir(parents=True)
    os.mkfifo(heads / "fifo")
    with (heads / "huge").open("wb") as file:
        file.truncate(1 << 40)
    (heads / "link").symlink_to("/dev/zero")
    (heads / "good").write_text(A)
    deep = heads
    for _ in range(300):
        deep = deep / "d"
    deep.mkdir(parents=True)
    seen = Refs(repository=tmp_path)
    assert seen.below("refs/heads") == {"refs/heads/good": A}
    for name in ("fifo", "huge", "link", "nul\0", "x" * 5000):
        assert seen.read(f"refs/heads/{name}") is None
        assert not seen.symbolic(f"refs/heads/{name}")


def test_a_line_for_git_that_is_two_is_refused() -> None:
    assert transaction([f"update refs/heads/a {A}"]) == f"option no-deref\nupdate refs/heads/a {A}\n".encode()
    with pytest.raises(ValueError, match="not one line"):
        transaction([f"delete refs/heads/a\nupdate refs/heads/main {A}"])
