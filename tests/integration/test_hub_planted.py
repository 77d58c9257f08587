"""What an agent puts in place of files of git that it may write: nobody waits for it, nothing is written through it, and it
costs nobody but its own attempt.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.errors import GitError
from harness.hub import Hub, Worktree, clearing
from harness.hub import git as hub_git
from harness.hub.git import GitInterrupted
from harness.hub.slots import plain_refs
from tests.hubs import Desk, commit, git, reboot, work

PRECIOUS = "precious\n"
NAMES = (
    "gitdir",
    "HEAD",
    "commondir",
    "index",
    "logs",
    "logs/HEAD",
    "rebase-merge/done",
    "branch",
    "log of the branch",
)
READ_EVERYWHERE = (".gitignore", ".gitattributes")
"""By git, in every folder of a worktree."""
WAYS = (
    "garbage",
    "a folder",
    "a pipe",
    "a link to a file",
    "a link to nothing",
    "a link to the target",
    "1 TiB",
)


@pytest.fixture
def tree(hub: Hub) -> Worktree:
    tree = hub.prepare("agent-1", "x-1", 1, hub.target())
    work(hub, tree)
    (tree.path / "fresh").write_text("new\n")
    return tree


@contextlib.contextmanager
def at_most(seconds: int) -> Iterator[None]:
    def late(*_: object) -> None:
        raise TimeoutError("it waits for what an agent has planted")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def place(hub: Hub, tree: Worktree, name: str) -> Path:
    branch = f"refs/heads/harness/{tree.uid}/{tree.n}"
    match name:
        case "branch":
            return hub.path / branch
        case "log of the branch":
            return hub.path / "logs" / branch
        case ".gitignore" | ".gitattributes":
            return tree.path / "src" / name
        case _:
            return hub.path / "worktrees" / tree.admin / name


def plant(path: Path, way: str, victim: Path, hub: Hub) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        path.rename(path.with_name(f"{path.name}.old"))
    path.unlink(missing_ok=True)
    match way:
        case "garbage":
            path.write_bytes(b"\0" * 1000)
        case "a folder":
            path.mkdir()
            (path / "inside").touch()
        case "a pipe":
            os.mkfifo(path)
        case "1 TiB":
            with path.open("wb") as file:
                file.truncate(1 << 40)
        case "a link to nothing":
            path.symlink_to(victim.with_name("made"))
        case "a link to the target":
            path.symlink_to(hub.path / hub.repo.target)
        case _:
            path.symlink_to(victim)


@pytest.mark.parametrize(
    ("way", "name"),
    [*itertools.product(WAYS, NAMES), *itertools.product(("a pipe", "a link to a file"), READ_EVERYWHERE)],
)
def test_what_is_planted_in_place_of_a_file_of_git(
    hub: Hub, tree: Worktree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, way: str
) -> None:
    monkeypatch.setattr(hub_git, "LOCAL_S", 10.0)
    victim, target = tmp_path / "victim", hub.target()
    (hub.path / hub.repo.target).write_text(f"{target}\n")  # loose: what a link may lead to
    victim.write_text(PRECIOUS)
    plant(place(hub, tree, name), way, victim, hub)
    with at_most(30):
        for act in (
            lambda: hub.status(tree),
            lambda: hub.commit_leftovers(tree, "rest"),
            lambda: hub.salvage(tree, "x-1", 1),
        ):
            try:
                act()
            except GitInterrupted:
                raise  # it waited
            except (GitError, OSError):
                continue  # its own attempt may fail by it
        other = hub.prepare("agent-2", "y-1", 1, hub.target())
        hub.checkout_merged(hub.target())
        again = hub.prepare("agent-1", "x-1", 2, hub.target())
    for worktree in (other, again):
        assert git(worktree.path, "status", "--porcelain") == ""
        assert git(worktree.path, "rev-parse", "HEAD") == target
    assert victim.read_text() == PRECIOUS
    assert not victim.with_name("made").exists()
    assert hub.target() == target
    assert (hub.path / hub.repo.target).read_text() == f"{target}\n"
    assert git(hub.path, "fsck", "--strict", "--no-dangling") == ""


@pytest.mark.parametrize("name", ["index.new", ".index.tmp"])
def test_a_private_name_of_ours_cannot_be_guessed(
    hub: Hub, tree: Worktree, tmp_path: Path, name: str
) -> None:
    """Once an index was copied by way of index.new: what it linked to was overwritten, with names that the agent chose."""
    victim = tmp_path / "victim"
    victim.write_text(PRECIOUS)
    (hub.path / "worktrees" / tree.admin / name).symlink_to(victim)
    with contextlib.suppress(GitError):
        hub.commit_leftovers(tree, "rest")
    hub.salvage(tree, "x-1", 1)
    hub.prepare("agent-1", "x-1", 2, hub.target())
    assert victim.read_text() == PRECIOUS


def test_a_folder_of_objects_that_is_a_link_is_none(hub: Hub, tree: Worktree, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    objects = hub.path / "objects"
    free = [f"{k:02x}" for k in range(256) if not (objects / f"{k:02x}").exists()]
    for name in free:
        (objects / name).symlink_to(outside)
    hub.commit_leftovers(tree, "rest")
    assert list(outside.iterdir()) == []


DEEP = 3000


def deep(top: Path) -> None:
    """Deeper than Python can call itself."""
    here = Path.cwd()
    top.mkdir(parents=True)
    try:
        os.chdir(top)
        for _ in range(DEEP):
            os.mkdir("d")
            os.chdir("d")
    finally:
        os.chdir(here)


@pytest.mark.parametrize("name", ["config.worktree", "deep", "../../objects/info/alternates"])
@pytest.mark.parametrize("boot", ["this", "before"])
def test_folders_deeper_than_python_goes_stop_nobody(hub: Hub, tree: Worktree, name: str, boot: str) -> None:
    deep(Path(os.path.normpath(hub.path / "worktrees" / tree.admin / name)))
    if boot == "before":
        reboot(hub)
    other = hub.prepare("agent-2", "y-1", 1, hub.target())
    again = hub.prepare("agent-1", "z-1", 1, hub.target())
    for worktree in (other, again):
        assert git(worktree.path, "status", "--porcelain") == ""
    hub.sweep(lambda *_, **__: None)
    shutil_cannot = [str(path) for path in (hub.path / "worktrees").glob("*/deep")]
    subprocess.run(["rm", "-rf", "--", *shutil_cannot], check=True)
    assert list(hub.repo.guard.copies.glob("trash.*")) == []


def test_a_pipe_in_place_of_a_pack_is_removed(hub: Hub, tree: Worktree) -> None:
    pack = hub.path / "objects" / "pack"
    pack.mkdir(exist_ok=True)
    (pack / f"pack-{'a' * 40}.pack").write_bytes(b"PACK")
    os.mkfifo(pack / f"pack-{'a' * 40}.idx")
    with at_most(30):
        assert hub.prepare("agent-2", "y-1", 1, hub.target()).path.is_dir()


def test_a_folder_that_becomes_a_link_while_it_is_looked_at_is_not_followed(
    hub: Hub, tree: Worktree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent of another attempt of the item may live, and change what it may write."""
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "file").write_text(PRECIOUS)
    mine = hub.path / "refs/heads/harness/x-1/s"
    mine.mkdir()
    (mine / "file").touch()
    real = os.stat

    def swapped(path: int | str | Path, *args: object, **more: object) -> os.stat_result:
        info = real(path, *args, **more)  # type: ignore[arg-type]
        if path == "s":
            mine.rename(tmp_path / "moved")
            mine.symlink_to(victim)
        return info

    monkeypatch.setattr("os.stat", swapped)
    plain_refs(hub.repo, "x-1")
    monkeypatch.undo()
    assert mine.is_symlink()
    assert (victim / "file").read_text() == PRECIOUS
    plain_refs(hub.repo, "x-1")
    assert not os.path.lexists(mine)
    assert (victim / "file").read_text() == PRECIOUS


def test_what_may_not_be_removed_stays_and_ends_no_worker(
    hub: Hub, tree: Worktree, monkeypatch: pytest.MonkeyPatch
) -> None:
    stays = hub.path / "refs/heads/harness/x-1/s"
    stays.write_text("no ref")

    def refused(*_: object, **__: object) -> None:
        raise PermissionError("a folder of mode 555")

    monkeypatch.setattr("os.unlink", refused)
    plain_refs(hub.repo, "x-1")
    assert stays.exists()


@pytest.mark.parametrize("flag", ["--assume-unchanged", "--skip-worktree"])
def test_files_that_differ_from_the_commit_cannot_be_hidden_from_the_gates(
    hub: Hub, tree: Worktree, flag: str
) -> None:
    """Gates judge the files; the commit is merged."""
    (tree.path / "fresh").unlink()
    (tree.path / "a.txt").write_text("bad\n")
    git(tree.path, "commit", "-q", "-a", "-m", "bad")
    assert hub.status(tree).clean
    git(tree.path, "update-index", flag, "a.txt")
    (tree.path / "a.txt").write_text("good\n")
    assert git(tree.path, "status", "--porcelain") == ""
    assert hub.status(tree).changed == ("a.txt",)
    assert hub.tree_at(tree) is None
    assert hub.commit_leftovers(tree, "rest").sha is not None  # what gates see is what is merged
    assert hub.status(tree).clean
    assert git(tree.path, "show", "HEAD:a.txt") == "good"


def test_repositories_in_ignored_folders_are_kept_after_a_restart_of_the_machine(
    hub: Hub, tree: Worktree
) -> None:
    (tree.path / ".gitignore").write_text("vendor/\n")
    inner = tree.path / "vendor" / "lib"
    inner.mkdir(parents=True)
    git(inner, "init", "-q")
    (inner / "code").write_text("mine\n")
    reboot(hub)
    again = hub.prepare("agent-1", "z-1", 1, hub.target())
    assert again.moved_aside is not None
    assert (again.moved_aside / "vendor" / "lib" / "code").read_text() == "mine\n"


def test_a_tree_that_cannot_be_removed_keeps_nobody_from_the_slot(hub: Hub, tree: Worktree) -> None:
    left = hub.repo.shelf / "slots" / "agent-1.trash"
    (left / "x").mkdir(parents=True)
    for _ in range(2):
        reboot(hub)
        hub.prepare("agent-1", "z-1", 1, hub.target())
    assert not left.exists()


def test_a_pipe_in_place_of_an_object_is_waited_for_once(
    hub: Hub, tree: Worktree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_git, "LOCAL_S", 1.0)
    made = git(hub.path, "hash-object", "-w", "--stdin", stdin=b"mine")
    path = hub.path / "objects" / made[:2] / made[2:]
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(GitInterrupted):
        hub.repo.git("cat-file", "blob", made)
    assert not path.exists()


def test_what_cannot_be_removed_is_opened_up_without_following_a_link(
    hub: Hub, tree: Worktree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """chmod follows a link that it is given by name."""
    victim = tmp_path / "victim"
    victim.mkdir(mode=0o500)
    (victim / "file").write_text(PRECIOUS)
    (victim / "file").chmod(0o400)
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "link").symlink_to(victim)
    real, ran = hub.repo.git.run_beside, []

    def no_rm(_: object, argv: tuple[str, ...], **more: Any) -> int:
        ran.append(argv[0])
        return 1 if argv[0] == "rm" and ran.count("rm") == 1 else real(argv, **more)

    monkeypatch.setattr(type(hub.repo.git), "run_beside", no_rm)
    clearing.remove_all(hub.repo, [folder / "link", folder])
    assert ran == ["rm", "find", "rm"]
    assert not folder.exists()
    assert (victim.stat().st_mode & 0o777, (victim / "file").stat().st_mode & 0o777) == (0o500, 0o400)


def test_repositories_in_caches_to_keep_are_caches(at: Desk) -> None:
    at.project = replace(at.project, keep=("cache",))
    hub = at.open()
    tree = hub.prepare("agent-1", "x-1", 1, hub.target())
    (tree.path / "cache" / "dependency").mkdir(parents=True)
    git(tree.path / "cache" / "dependency", "init", "-q")
    reboot(hub)
    assert hub.prepare("agent-1", "z-1", 1, hub.target()).moved_aside is None


def test_what_is_byte_for_byte_in_the_commit_is_not_hidden(at: Desk, hub: Hub) -> None:
    """A blob with CRLF in a repository that says `text`: git calls it changed or not, as the times are."""
    up = at.upstream
    git(up, "switch", "-q", "main")
    (up / "w.txt").write_bytes(b"a\r\n")
    git(up, "add", "w.txt")
    git(up, "commit", "-q", "-m", "crlf")
    (up / ".gitattributes").write_text("*.txt text\n")
    git(up, "add", ".gitattributes")
    git(up, "commit", "-q", "-m", "says text")
    git(up, "switch", "-q", "-f", "work")
    hub.refresh()
    tree = hub.prepare("agent-1", "x-1", 1, hub.target())
    os.utime(tree.path / "w.txt")
    git(tree.path, "update-index", "--assume-unchanged", "w.txt")  # its own git sees no change
    assert hub.status(tree).changed == ()


def test_a_filter_hides_nothing_whoever_names_it(at: Desk, hub: Hub) -> None:
    """None is run here. (Repositories with git-lfs are refused.)"""
    up = at.upstream
    commit(up, ".gitattributes", "*.bin filter=x\n", branch="main")
    commit(up, "one.bin", "bad\n")
    git(up, "switch", "-q", "work")
    hub.refresh()
    tree = hub.prepare("agent-1", "x-1", 1, hub.target())
    commit(tree.path, ".gitattributes", "* filter=x\n")
    for name in ("one.bin", "a.txt"):
        git(tree.path, "update-index", "--skip-worktree", name)
        (tree.path / name).write_text("good\n")
    assert hub.status(tree).changed == ("a.txt", "one.bin")


def test_a_pipe_in_the_place_of_a_file_is_named_at_once(
    hub: Hub, tree: Worktree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_git, "LOCAL_S", 5.0)
    (tree.path / "fresh").unlink()
    git(tree.path, "update-index", "--assume-unchanged", "a.txt")
    (tree.path / "a.txt").unlink()
    os.mkfifo(tree.path / "a.txt")
    assert hub.status(tree).changed == ("a.txt",)


def test_neither_the_mode_nor_the_kind_of_a_file_can_be_hidden(hub: Hub, tree: Worktree) -> None:
    (tree.path / "fresh").unlink()
    (tree.path / "run.sh").write_text("#!/bin/sh\n")
    (tree.path / "link").symlink_to("/etc/passwd")
    (tree.path / "deep").mkdir()
    (tree.path / "deep" / "file").write_text("x\n")
    git(tree.path, "add", "-A")
    git(tree.path, "commit", "-q", "-m", "bad")
    git(tree.path, "update-index", "--skip-worktree", "run.sh", "link", "deep/file")
    (tree.path / "run.sh").chmod(0o755)
    (tree.path / "link").unlink()
    (tree.path / "link").write_text("/etc/passwd")
    (tree.path / "deep").rename(tree.path / "other")
    (tree.path / "deep").symlink_to("other")
    assert {"run.sh", "link", "deep/file"} <= set(hub.status(tree).changed)


def test_objects_that_an_agent_has_closed_are_opened(hub: Hub, tree: Worktree) -> None:
    objects = hub.path / "objects"
    objects.chmod(0o500)
    assert hub.prepare("agent-2", "y-1", 1, hub.target()).path.is_dir()
    assert objects.stat().st_mode & 0o700 == 0o700
