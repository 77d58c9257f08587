"""What a hostile agent does to the hub from its worktree is put back, runs nothing of ours, and destroys nothing.

Without a sandbox: here the agent may write whatever we may.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from harness.errors import GitError
from harness.hub import Built, GitCommandError, Hub, Published, Swap, Upstream, Worktree
from harness.logs import Event
from tests.hubs import Desk, commit, git, merge, submit, work


@pytest.fixture
def tree(hub: Hub) -> Worktree:
    return hub.prepare("agent-1", "x-1", 1, hub.target())


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """A program that must not run; `sprung(trap)` says whether it did."""
    program = tmp_path / "trap"
    program.write_text(f"#!/bin/sh\ntouch '{tmp_path}/sprung'\ncat\n")
    program.chmod(0o755)
    return program


def sprung(trap: Path) -> bool:
    return trap.with_name("sprung").exists()


def everything(hub: Hub, tree: Worktree) -> None:
    """All calls of ours that follow an attempt."""
    hub.commit_leftovers(tree, "rest")
    seen = hub.status(tree)
    assert seen.head is not None
    hub.changed_files(tree.base, seen.head)
    hub.diff(tree.base, seen.head)
    hub.pin(tree.uid, tree.n, seen.head)
    merge(hub, tree.uid, tree.n, seen.head)
    hub.checkout_merged(hub.target())
    hub.refresh()
    hub.publish()
    hub.salvage(tree, tree.uid, tree.n)
    hub.prepare(tree.slot, "next-1", 1, hub.target())


@pytest.mark.parametrize(
    "setting",
    [
        "core.fsmonitor={trap}",
        "core.hooksPath={folder}",
        "filter.evil.clean={trap}",
        "filter.evil.smudge={trap}",
        "filter.evil.process={trap}",
        "diff.external={trap}",
        "diff.evil.textconv={trap}",
        "merge.evil.driver={trap}",
        "core.sshCommand={trap}",
        "core.pager={trap}",
        "core.editor={trap}",
        "core.alternateRefsCommand={trap}",
        "gpg.program={trap}",
        "alias.status=!{trap}",
        "credential.helper=!{trap}",
        "include.path={folder}/more",
        "core.worktree={folder}",
        "uploadpack.packObjectsHook={trap}",
    ],
)
def test_a_setting_in_the_hubs_config_never_runs_in_our_calls(
    at: Desk, hub: Hub, tree: Worktree, trap: Path, setting: str, tmp_path: Path
) -> None:
    name, _, value = setting.format(trap=trap, folder=tmp_path).partition("=")
    (tmp_path / "more").write_text(f"[core]\n\tfsmonitor = {trap}\n")
    commit(tree.path, ".gitattributes", "* filter=evil diff=evil merge=evil\n")
    git(hub.path, "config", name, value)
    (tree.path / "a.txt").write_text("changed\n")
    everything(hub, tree)
    assert not sprung(trap)
    assert at.emitted(Event.HUB_TAMPERED)[0]["files"] == "config"
    assert git(hub.path, "config", name, ok=(0, 1)) == ""


@pytest.mark.parametrize(
    "hook",
    ["pre-commit", "post-checkout", "reference-transaction", "post-index-change", "pre-push", "post-merge"],
)
def test_a_hook_in_the_hub_never_runs_in_our_calls(hub: Hub, tree: Worktree, trap: Path, hook: str) -> None:
    work(hub, tree)
    (hub.path / "hooks").mkdir(exist_ok=True)
    (hub.path / "hooks" / hook).symlink_to(trap)
    everything(hub, tree)
    assert not sprung(trap)
    assert os.listdir(hub.path / "hooks") == []


def test_a_settings_file_of_the_worktree_never_counts(hub: Hub, tree: Worktree, trap: Path) -> None:
    git(hub.path, "config", "extensions.worktreeConfig", "true")
    admin = hub.path / "worktrees" / tree.admin
    (admin / "config.worktree").write_text(
        f'[core]\n\tfsmonitor = {trap}\n[filter "evil"]\n\tclean = {trap}\n'
    )
    (tree.path / ".gitattributes").write_text("* filter=evil\n")
    everything(hub, tree)
    assert not sprung(trap)
    assert not (admin / "config.worktree").exists()


def test_a_git_folder_of_the_agents_own_in_place_of_the_link_never_counts(
    hub: Hub, tree: Worktree, trap: Path
) -> None:
    work(hub, tree)
    (tree.path / ".git").unlink()
    git(tree.path, "init", "-q")
    git(tree.path, "config", "core.fsmonitor", str(trap))
    git(tree.path, "config", "filter.evil.clean", str(trap))
    (tree.path / ".gitattributes").write_text("* filter=evil\n")
    assert hub.status(tree).fault == ".git was replaced by a folder"
    assert hub.commit_leftovers(tree, "rest").sha is None
    second = hub.prepare("agent-1", "y-1", 1, hub.target())
    assert second.moved_aside is not None
    assert not sprung(trap)


def test_an_admin_directory_that_points_elsewhere_never_counts(
    hub: Hub, tree: Worktree, trap: Path, tmp_path: Path
) -> None:
    work(hub, tree)
    evil = tmp_path / "evil"
    git(tmp_path, "clone", "-q", "--bare", str(hub.path), str(evil))
    git(evil, "config", "core.fsmonitor", str(trap))
    (hub.path / "worktrees" / tree.admin / "commondir").write_text(f"{evil}\n")
    assert hub.status(tree).fault == "commondir was changed"
    second = hub.prepare("agent-1", "y-1", 1, hub.target())
    assert second.moved_aside is not None
    assert git(second.path, "rev-parse", "--git-common-dir") == str(hub.path)
    assert not sprung(trap)


@pytest.mark.parametrize("how", ["empty", "garbage", "folder", "pipe", "gone"])
def test_an_agent_that_breaks_its_own_git_keeps_nobody_from_a_worktree(
    hub: Hub, tree: Worktree, how: str
) -> None:
    """`git worktree add` reads those of all the others."""
    commondir = hub.path / "worktrees" / tree.admin / "commondir"
    commondir.unlink()
    match how:
        case "empty":
            commondir.touch()
        case "garbage":
            commondir.write_bytes(bytes(1000))
        case "folder":
            commondir.mkdir()
            (commondir / "file").touch()
        case "pipe":
            os.mkfifo(commondir)
        case _:
            pass
    assert hub.prepare("agent-2", "y-1", 1, hub.target()).path.is_dir()
    assert hub.prepare("agent-1", "z-1", 1, hub.target()).path.is_dir()
    assert git(hub.path, "fsck", "--strict", "--no-dangling") == ""


def test_nothing_runs_inside_of_a_nested_repository(hub: Hub, tree: Worktree, trap: Path) -> None:
    for name in ("untracked", "added"):
        git(tree.path, "init", "-q", name)
        commit(tree.path / name, "inner", "x")
        git(tree.path / name, "config", "core.fsmonitor", str(trap))
        git(tree.path / name, "config", "filter.evil.clean", str(trap))
        (tree.path / name / ".gitattributes").write_text("* filter=evil\n")
        (tree.path / name / "inner").write_text("changed\n")
    git(tree.path, "add", "added")
    git(tree.path, "commit", "-q", "-m", "a link")
    everything(hub, tree)
    assert not sprung(trap)


def test_objects_elsewhere_do_not_count_as_committed(hub: Hub, tree: Worktree, tmp_path: Path) -> None:
    """A result whose objects are in a store of the agent's would vanish with it."""
    elsewhere = tmp_path / "objects"
    elsewhere.mkdir()
    (hub.path / "objects/info").mkdir(exist_ok=True)
    (hub.path / "objects/info/alternates").write_text(f"{elsewhere}\n")
    (tree.path / "new").write_text("x")
    git(tree.path, "add", "new")
    git(tree.path, "commit", "-q", "-m", "elsewhere")
    sha = git(tree.path, "rev-parse", "HEAD")
    moved = hub.path / "objects" / sha[:2] / sha[2:]
    (elsewhere / sha[:2]).mkdir()
    moved.rename(elsewhere / sha[:2] / sha[2:])
    assert git(tree.path, "log", "-1", "--format=%s") == "elsewhere"
    assert "objects/info/alternates" in hub.check()
    with pytest.raises(GitCommandError):
        hub.changed_files(tree.base, sha)


def test_replaced_and_grafted_history_is_not_believed(hub: Hub, tree: Worktree) -> None:
    theirs = submit(hub, "y-1", name="y", slot="agent-2")
    merge(hub, "y-1", 1, theirs)
    empty = git(tree.path, "commit-tree", f"{tree.base}^{{tree}}", "-m", "nothing was ever merged")
    git(tree.path, "replace", hub.target(), empty)
    assert hub.merged_as(hub.target(), "y-1", 1, theirs) == hub.target()


def test_a_forged_commit_graph_is_not_believed(hub: Hub, tree: Worktree) -> None:
    sha = work(hub, tree)
    git(tree.path, "commit-graph", "write", "--reachable")
    graph = hub.path / "objects/info/commit-graph"
    graph.chmod(0o644)
    graph.write_bytes(graph.read_bytes()[:-40] + b"\0" * 40)
    merge(hub, "x-1", 1, sha)
    assert hub.merged_as(hub.target(), "x-1", 1, sha) == hub.target()


def test_gc_by_an_agent_destroys_nothing_of_ours(hub: Hub, tree: Worktree) -> None:
    sha = work(hub, tree)
    hub.pin("x-1", 1, sha)
    (tree.path / "left").write_text("x")
    hub.salvage(tree, "x-1", 1)
    held = hub.swap_lane(hub.lane(), "e", {"uid": "x-1", "n": 1})
    git(tree.path, "worktree", "prune", "--expire=now")
    git(tree.path, "gc", "-q", "--prune=now", "--aggressive")
    git(tree.path, "pack-refs", "--all")
    assert hub.lane() == held
    ((_, saved),) = hub.salvaged("x-1").items()
    assert git(hub.path, "show", f"{saved}:left") == "x"
    assert isinstance(hub.build_merge(hub.target(), "x-1", 1, sha, "x"), Built)
    assert hub.prepare("agent-1", "y-1", 1, hub.target()).reused


def test_a_target_made_symbolic_is_not_followed(at: Desk, hub: Hub, tree: Worktree) -> None:
    """The agent makes main a symbolic ref to its own branch: every merge would go there."""
    old = hub.target()
    sha = work(hub, tree)
    held = hub.swap_lane(hub.lane(), "e", None)
    assert held is not None
    (hub.path / "refs/heads/main").write_text(f"ref: refs/heads/{tree.branch}\n")
    made = hub.build_merge(old, "x-1", 1, sha, "x-1")
    assert isinstance(made, Built)
    assert hub.swap_target(held, made.sha, old) is Swap.TARGET
    assert git(hub.path, "rev-parse", tree.branch) == sha
    with pytest.raises(GitError, match="no plain branch"):
        hub.target()


def test_the_agents_config_cannot_move_our_worktree_elsewhere(
    hub: Hub, tree: Worktree, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "precious").write_text("x")
    git(hub.path, "config", "core.worktree", str(victim))
    (hub.path / "worktrees" / tree.admin / "gitdir").write_text(f"{victim}/.git\n")
    hub.commit_leftovers(tree, "rest")
    hub.prepare("agent-1", "y-1", 1, hub.target())
    assert sorted(os.listdir(victim)) == ["precious"]


def test_a_worktree_full_of_locks_and_switched_branches_is_ready_for_the_next(
    hub: Hub, tree: Worktree
) -> None:
    git(tree.path, "switch", "-q", "main")
    for name in ("index.lock", "HEAD.lock", "locked"):
        (hub.path / "worktrees" / tree.admin / name).write_text("")
    second = hub.prepare("agent-1", "y-1", 1, hub.target())
    assert second.reused
    assert git(second.path, "symbolic-ref", "HEAD") == "refs/heads/harness/y-1/1"
    third = hub.prepare("agent-2", "z-1", 1, hub.target())
    commit(third.path, "c", "c")
    commit(second.path, "c", "c")


def test_the_name_of_a_file_is_no_command_for_git(at: Desk, hub: Hub, tree: Worktree) -> None:
    """An agent may write below the branches of its own item."""
    before = hub.target()
    (tree.path / "evil").write_text("x")
    git(tree.path, "add", "-A")
    git(tree.path, "commit", "-q", "-m", "evil")
    evil = git(tree.path, "rev-parse", "HEAD")
    own = hub.path / "refs/heads/harness/x-1"
    planted = own / f"2/x\nupdate refs/heads/main {evil}\ncreate refs/heads/harness/x-1/zz"
    planted.parent.mkdir(parents=True)
    planted.write_text(f"{evil}\n")
    hub.salvage(tree, "x-1", 1)
    second = at.open().prepare("agent-1", "x-1", 2, before)
    assert hub.target() == before
    assert git(second.path, "rev-parse", "HEAD") == before
    assert git(hub.path, "for-each-ref", "refs/heads/harness/x-1/zz") == ""


def test_links_in_the_admin_directory_lead_to_no_file_of_anybody_else(
    at: Desk, hub: Hub, tree: Worktree, tmp_path: Path
) -> None:
    precious = tmp_path / "precious"
    (precious / "logs").mkdir(parents=True)
    for name in ("HEAD", "draft"):
        (precious / name).write_text("precious")
    admin = hub.path / "worktrees" / tree.admin
    (admin / "HEAD.new").symlink_to(precious / "draft")
    shutil.rmtree(admin / "logs", ignore_errors=True)
    (admin / "logs").symlink_to(precious)
    at.open().prepare("agent-1", "x-1", 2, hub.target())
    assert {p.name: p.read_text() for p in precious.iterdir() if p.is_file()} == {
        "HEAD": "precious",
        "draft": "precious",
    }


@pytest.mark.parametrize("where", ["branch", "HEAD"])
@pytest.mark.parametrize("what", ["names nothing", "is empty", "a fifo", "a link to a device"])
def test_a_ref_of_an_agent_keeps_nobody_from_following_and_publishing(
    at: Desk, hub: Hub, where: str, what: str
) -> None:
    """git looks at all of them before it fetches or pushes; one that names nothing is "bad object" (a power loss makes some)."""
    tree = hub.prepare("agent-1", "x-1", 1, hub.target())
    ref = hub.path / ("refs/heads/harness/x-1/own" if where == "branch" else f"worktrees/{tree.admin}/HEAD")
    ref.unlink(missing_ok=True)
    match what:
        case "names nothing":
            ref.write_text("1234" * 10 + "\n")
        case "is empty":
            ref.write_text("")
        case "a fifo":
            os.mkfifo(ref)
        case _:
            ref.symlink_to("/dev/zero")
    commit(at.upstream, "b", "b", branch="main")
    git(at.upstream, "tag", "v1")
    git(at.upstream, "switch", "-q", "work")
    assert hub.refresh().state is Upstream.FORWARDED
    assert git(hub.path, "rev-parse", "v1") == hub.target()
    sha = submit(hub, "y-1", 1, "other.txt", slot="agent-2")
    merge(hub, "y-1", 1, sha)
    assert isinstance(hub.publish(), Published)
    assert git(at.upstream, "show", "main:other.txt") == "work"
    assert hub.fsck() == ""
    assert list(hub.repo.shelf.glob("far.*")) == []


@pytest.mark.parametrize("what", ["a fifo", "a NUL", "a name that is too long", "a folder"])
def test_a_head_that_is_none_holds_nobody_up(at: Desk, hub: Hub, tree: Worktree, what: str) -> None:
    head = hub.path / "worktrees" / tree.admin / "HEAD"
    head.unlink()
    match what:
        case "a fifo":
            os.mkfifo(head)
        case "a NUL":
            head.write_text("ref: refs/heads/a\0b\n")
        case "a name that is too long":
            head.write_text(f"ref: refs/heads/{'x' * 3000}\n")
        case _:
            head.mkdir()
    second = at.open().prepare("agent-1", "x-1", 2, hub.target())
    assert git(second.path, "rev-parse", "HEAD") == hub.target()


def test_fsck_says_which_of_our_refs_cannot_be_read_and_nothing_of_an_agents(hub: Hub) -> None:
    sha = submit(hub, "x-1")
    tree = hub.prepare("agent-2", "y-1", 1, hub.target())
    lost = work(hub, tree, "other.txt")
    (hub.path / "objects" / lost[:2] / lost[2:]).unlink()  # its agent's own
    assert hub.fsck() == ""
    (hub.path / "objects" / sha[:2] / sha[2:]).unlink()
    assert "refs/harness/attempt/x-1/1" in hub.fsck()
    (hub.path / "refs/harness/attempt/x-1/1").write_text("")  # torn
    assert "refs/harness/attempt/x-1/1 names nothing" in hub.fsck()
