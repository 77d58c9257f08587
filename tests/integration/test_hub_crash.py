"""A process that dies between any two of its git calls leaves what the same call completes, and nothing is lost."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from harness.errors import TryAgainError
from harness.hub import Built, Hub, Refused, Worktree, slots, worktrees
from harness.hub.repo import Repo
from harness.layout import Layout
from harness.runner import Ended, EndReason
from tests.hubs import Desk, Killed, commit, desk, git, person, submit, work


def sweep(
    layout: Layout,
    tmp_path: Path,
    arrange: Callable[[Hub], object],
    act: Callable[[Hub], object],
    check: Callable[[Hub], None],
) -> int:
    """`act` is killed after each of its commands, then made again by a new process, then checked. -> kills"""
    up = person(tmp_path / "up")
    arrange(desk(layout, up).ready())
    before = tmp_path / "before"
    for folder in (up, layout.state):
        shutil.copytree(folder, before / folder.name, symlinks=True)
    kills = 0
    while True:
        at = desk(layout, up)
        hub = at.open()
        start = len(at.probe.calls)

        def die(_: tuple[str, ...], at: Desk = at, last: int = start + kills + 1) -> None:
            if len(at.probe.calls) == last:
                raise Killed

        at.probe.after = die
        try:
            act(hub)
        except Killed:
            kills += 1
        else:
            at.probe.after = lambda _: None
            check(hub)
            assert git(hub.path, "fsck", "--no-dangling") == ""
            return kills
        second = desk(layout, up).open()
        act(second)
        check(second)
        for folder in (up, layout.state):
            shutil.rmtree(folder)
            shutil.copytree(before / folder.name, folder, symlinks=True)


def prepared(hub: Hub) -> Worktree:
    return hub.prepare("agent-1", "y-1", 1, hub.target())


def assert_ready(hub: Hub) -> None:
    tree = hub.find("agent-1")
    assert tree is not None
    assert git(tree.path, "status", "--porcelain") == ""
    assert git(tree.path, "symbolic-ref", "HEAD") == "refs/heads/harness/y-1/1"
    assert git(tree.path, "rev-parse", "HEAD") == hub.target()
    assert sorted(p.name for p in tree.path.iterdir()) == [".git", "a.txt", "src"]


def test_a_new_worktree(layout: Layout, tmp_path: Path) -> None:
    assert sweep(layout, tmp_path, lambda hub: None, prepared, assert_ready) >= 2


def test_a_worktree_that_is_being_registered(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a command of git: each step of ours is the last one of a process."""
    at = desk(layout, person(tmp_path / "up"))
    at.ready()
    whole, steps = slots.register, 0
    for k in range(1, 20):

        def killed(repo: Repo, place: slots.Place, sha: str, last: int = k) -> str:
            left = [last]
            for name in ("mkdir", "rename", "write_bytes", "write_text"):
                real = getattr(Path, name)

                def step(self: Path, *args: Any, real: Any = real, **more: Any) -> Any:
                    done = real(self, *args, **more)
                    left[0] -= 1
                    if not left[0]:
                        raise Killed
                    return done

                patch.setattr(Path, name, step)
            return whole(repo, place, sha)

        with monkeypatch.context() as patch:
            patch.setattr(worktrees, "register", killed)
            try:
                at.open().prepare("agent-1", f"k-{k}", 1, at.open().target())
            except Killed:
                steps += 1
        hub = at.open()
        tree = hub.prepare("agent-1", "y-1", k, hub.target())
        assert git(tree.path, "status", "--porcelain") == ""
        (admin,) = (p for p in (hub.path / "worktrees").iterdir())
        assert admin.name == tree.admin
        assert git(hub.path, "fsck", "--no-dangling") == ""
        hub.repo.git.run_beside(("rm", "-rf", str(tree.path)))  # the next one is a new one again
        if steps < k:
            break
    assert steps >= 7  # all of it, and some of what follows


def messy(hub: Hub) -> None:
    """Committed, staged, uncommitted, untracked, ignored, stashed."""
    tree = hub.prepare("agent-1", "x-1", 1, hub.target())
    commit(tree.path, ".gitignore", "*.o\n")
    (tree.path / "a.txt").write_text("stashed\n")
    git(tree.path, "stash", "push", "-q")
    work(hub, tree)
    (tree.path / "staged").write_text("staged\n")
    git(tree.path, "add", "staged")
    (tree.path / "staged").write_text("changed\n")
    (tree.path / "untracked").write_text("untracked\n")
    (tree.path / "x.o").write_text("ignored\n")


def saved(hub: Hub) -> set[str]:
    """The lines of all files that were salvaged as commits."""
    names = ("a.txt", "staged", "untracked", "new.txt")
    wanted = "".join(f"{sha}:{name}\n" for sha in hub.salvaged("x-1").values() for name in names)
    return set(git(hub.path, "cat-file", "--batch", stdin=wanted.encode()).split("\n"))


def assert_saved(hub: Hub, elsewhere: Iterable[str] = ()) -> None:
    assert {"stashed", "staged", "changed", "untracked", "work"} <= saved(hub).union(elsewhere)
    assert git(hub.path, "rev-parse", "--verify", "-q", "refs/stash", ok=(0, 1)) == ""


def assert_reused(hub: Hub) -> None:
    assert_ready(hub)
    assert_saved(hub)


def test_a_messy_worktree_reused(layout: Layout, tmp_path: Path) -> None:
    assert sweep(layout, tmp_path, messy, prepared, assert_reused) >= 12


def test_salvage(layout: Layout, tmp_path: Path) -> None:
    def act(hub: Hub) -> None:
        tree = hub.find("agent-1")
        assert tree is not None
        hub.salvage(tree, "x-1", 1)

    def check(hub: Hub) -> None:
        assert_saved(hub)
        prepared(hub)
        assert_ready(hub)

    assert sweep(layout, tmp_path, messy, act, check) >= 8


def test_a_worktree_with_a_nested_repository(layout: Layout, tmp_path: Path) -> None:
    def arrange(hub: Hub) -> None:
        messy(hub)
        tree = hub.find("agent-1")
        assert tree is not None
        git(tree.path, "init", "-q", "nested")
        commit(tree.path / "nested", "inner", "precious")

    def check(hub: Hub) -> None:
        assert_ready(hub)
        assert_saved(hub)
        assert (layout.kept / "x-1.1/nested/inner").read_text() == "precious"

    assert sweep(layout, tmp_path, arrange, prepared, check) >= 12


def leftovers(hub: Hub) -> None:
    tree = prepared(hub)
    (tree.path / "a.txt").write_text("changed\n")
    (tree.path / "new").write_text("new\n")


def commit_rest(hub: Hub) -> None:
    tree = hub.find("agent-1")
    assert tree is not None
    hub.commit_leftovers(tree, "rest")


def assert_committed(hub: Hub) -> None:
    tree = hub.find("agent-1")
    assert tree is not None
    assert hub.status(tree).clean
    assert git(tree.path, "log", "--format=%s").split("\n") == ["rest", "first"]
    assert git(tree.path, "show", "HEAD:a.txt") == "changed"


def test_leftovers_are_committed_once(layout: Layout, tmp_path: Path) -> None:
    assert sweep(layout, tmp_path, leftovers, commit_rest, assert_committed) >= 5


def submitted(hub: Hub) -> None:
    submit(hub, "x-1")


def merge(hub: Hub) -> None:
    """What a merger does in order, with m2 first, as after a restart."""
    sha = hub.repo.refs.read("refs/harness/attempt/x-1/1")
    assert sha is not None
    hub.pin("x-1", 1, sha)
    held = hub.swap_lane(hub.lane(), f"epoch-{hub.lane().epoch}", None)
    assert held is not None
    old = hub.target()
    if hub.merged_as(old, "x-1", 1, sha) is None:
        made = hub.build_merge(old, "x-1", 1, sha, "x-1")
        assert isinstance(made, Built)
        hub.checkout_merged(made.sha)
        assert hub.swap_target(held, made.sha, old) == "ok"
    hub.refresh()
    if isinstance(now := hub.publish(), Refused):
        raise TryAgainError(now.reason)


def assert_merged(hub: Hub) -> None:
    up = Path(hub.repo.project.path)
    assert git(up, "rev-parse", "main") == hub.target()
    assert len(git(up, "log", "--first-parent", "--merges", "--format=%H", "main").split("\n")) == 1


def test_pin_merge_and_publish(layout: Layout, tmp_path: Path) -> None:
    assert sweep(layout, tmp_path, submitted, merge, assert_merged) >= 14


@pytest.mark.parametrize("file", ["slots/agent-1.json", "slots/agent-1.index"])
def test_notes_torn_by_a_power_loss_cost_a_worktree_but_no_work(
    layout: Layout, tmp_path: Path, file: str
) -> None:
    hub = desk(layout, person(tmp_path / "up")).open()
    messy(hub)
    (hub.path.with_suffix(".ours") / file).write_bytes(b"")
    tree = prepared(hub)
    assert_ready(hub)
    if tree.moved_aside is None:
        assert_saved(hub)
    else:
        assert (tree.moved_aside / "untracked").exists()


def test_a_call_that_is_stopped_can_be_made_again(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.hub import GitInterrupted

    at = desk(layout, person(tmp_path / "up"))
    hub = at.open()
    messy(hub)
    real = at.probe.runner.run
    monkeypatch.setattr(
        at.probe.runner,
        "run",
        lambda _: Ended(reason=EndReason.STOPPED, stop_reason="the harness is stopping"),
    )
    with pytest.raises(GitInterrupted, match="stopping"):
        prepared(hub)
    with pytest.raises(GitInterrupted, match="stopping"):
        hub.repo.git.run_beside(("true",))
    monkeypatch.setattr(at.probe.runner, "run", real)
    prepared(hub)
    assert_ready(hub)
    assert_saved(hub)
