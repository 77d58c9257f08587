"""What an agent leaves uncommitted becomes a commit; what it leaves elsewhere is saved."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from harness.hub import BrokenCommitError, GitCommandError, Hub, Worktree
from harness.hub.git import CommandRunner
from harness.layout import Layout
from harness.runner import Command, Ended, EndReason
from tests.hubs import Desk, commit, desk, git, person, work


@pytest.fixture
def at(layout: Layout, tmp_path: Path) -> Desk:
    return desk(layout, person(tmp_path / "up"), keep=("cache",))


@pytest.fixture
def tree(hub: Hub) -> Worktree:
    return hub.prepare("agent-1", "x-1", 1, hub.target())


def files(where: Path, sha: str) -> list[str]:
    return git(where, "ls-tree", "-r", "-z", "--name-only", sha).split("\0")[:-1]


def test_nothing_is_committed_when_nothing_was_left(hub: Hub, tree: Worktree) -> None:
    sha = work(hub, tree)
    left = hub.commit_leftovers(tree, "rest")
    assert left.sha is None
    assert left.head == sha
    assert hub.status(tree).clean
    assert hub.status(tree).head == sha


def test_changed_deleted_and_new_files_are_committed_by_harness_and_caches_are_not(
    hub: Hub, tree: Worktree
) -> None:
    (tree.path / "a.txt").write_text("changed\n")
    (tree.path / "src/b.txt").unlink()
    (tree.path / "new").write_text("new\n")
    (tree.path / "cache").mkdir()
    (tree.path / "cache/x").write_text("x")
    (tree.path / "link").symlink_to("/nowhere")
    before = hub.status(tree)
    assert sorted(before.changed) == ["a.txt", "src/b.txt"]
    assert before.dirty == before.changed
    assert sorted(before.untracked) == ["link", "new"]
    left = hub.commit_leftovers(tree, "x-1: the rest\n\n%s --amend")
    assert left.sha == left.head == git(tree.path, "rev-parse", "harness/x-1/1")
    assert files(tree.path, "HEAD") == ["a.txt", "link", "new"]
    assert git(tree.path, "log", "-1", "--format=%an %cn %s") == "harness harness x-1: the rest"
    assert git(tree.path, "status", "--porcelain") == ""
    assert hub.commit_leftovers(tree, "again").sha is None


def test_names_that_are_no_text_are_committed_as_they_are(hub: Hub, tree: Worktree) -> None:
    names = [b"we\nird\xff", b"-rf", b":(glob)*", b'"quoted"', b" blank ", b"tab\t"]
    for name in names:
        with open(os.path.join(os.fsencode(tree.path), name), "wb") as f:
            f.write(name)
    left = hub.commit_leftovers(tree, "weird")
    assert left.sha is not None
    changes = hub.changed_files(tree.base, left.sha)
    assert sorted(os.fsencode(c.path) for c in changes) == sorted(names)
    assert {c.status for c in changes} == {"A"}
    hub.pin("x-1", 1, left.sha)
    built = hub.build_merge(hub.target(), "x-1", 1, left.sha, "x-1")
    assert hasattr(built, "sha")


def test_what_the_agent_staged_counts(hub: Hub, tree: Worktree) -> None:
    (tree.path / ".git-ignored").write_text("x")
    commit(tree.path, ".gitignore", "*.gen\na.txt\n")
    (tree.path / "forced.gen").write_text("wanted\n")
    (tree.path / "other.gen").write_text("ignored\n")
    git(tree.path, "add", "-f", "forced.gen")
    git(tree.path, "rm", "-q", "--cached", "a.txt")
    left = hub.commit_leftovers(tree, "rest")
    assert left.sha is not None
    assert files(tree.path, left.sha) == [".git-ignored", ".gitignore", "forced.gen", "src/b.txt"]
    assert (tree.path / "a.txt").exists()


def test_a_nested_repository_is_named_and_not_stored_as_a_bare_link(hub: Hub, tree: Worktree) -> None:
    (tree.path / "new").write_text("new\n")
    git(tree.path, "init", "-q", "nested")
    commit(tree.path / "nested", "inner", "x")
    left = hub.commit_leftovers(tree, "rest")
    assert left.sha is not None
    assert left.nested == ("nested/",)
    assert files(tree.path, left.sha) == ["a.txt", "new", "src/b.txt"]
    assert hub.status(tree).nested == ("nested/",)
    assert not hub.status(tree).clean


def test_a_nested_repository_that_the_agent_added_is_taken_out_again(hub: Hub, tree: Worktree) -> None:
    git(tree.path, "init", "-q", "nested")
    commit(tree.path / "nested", "inner", "x")
    git(tree.path, "add", "nested")
    (tree.path / "new").write_text("new\n")
    left = hub.commit_leftovers(tree, "rest")
    assert left.sha is not None
    assert left.nested == ("nested",)
    assert files(tree.path, left.sha) == ["a.txt", "new", "src/b.txt"]
    assert hub.faults(tree.base, left.sha) == ()


def test_only_an_added_nested_repository_is_nothing_to_commit(hub: Hub, tree: Worktree) -> None:
    git(tree.path, "init", "-q", "nested")
    commit(tree.path / "nested", "inner", "x")
    git(tree.path, "add", "nested")
    left = hub.commit_leftovers(tree, "rest")
    assert left.sha is None
    assert left.nested == ("nested",)


def test_nothing_is_committed_in_the_middle_of_a_merge(hub: Hub, tree: Worktree) -> None:
    work(hub, tree, "a.txt", "one way\n")
    git(tree.path, "switch", "-q", "-c", "harness/x-1/other", tree.base)
    head = commit(tree.path, "a.txt", "another way\n")
    git(tree.path, "merge", "harness/x-1/1", ok=(1,))
    left = hub.commit_leftovers(tree, "rest")
    assert (left.sha, left.head, left.in_progress) == (None, head, "merge")


def test_a_branch_that_the_agent_switched_to_moves_along(hub: Hub, tree: Worktree) -> None:
    git(tree.path, "switch", "-q", "-c", "harness/x-1/better")
    (tree.path / "new").write_text("new\n")
    left = hub.commit_leftovers(tree, "rest")
    assert git(hub.path, "rev-parse", "harness/x-1/better") == left.sha
    assert git(hub.path, "rev-parse", "harness/x-1/1") == tree.base
    seen = hub.status(tree)
    assert (seen.head, seen.branch, seen.tip) == (left.sha, "harness/x-1/better", tree.base)


@pytest.mark.parametrize("where", ["refs/heads/main", "refs/heads/harness/other-1/1"])
def test_a_head_that_points_at_another_branch_never_moves_it(hub: Hub, tree: Worktree, where: str) -> None:
    old = hub.target()
    git(hub.path, "update-ref", where, old)
    (hub.path / "worktrees" / tree.admin / "HEAD").write_text(f"ref: {where}\n")
    (tree.path / "new").write_text("new\n")
    left = hub.commit_leftovers(tree, "rest")
    assert left.sha is not None
    assert git(hub.path, "rev-parse", where) == old
    assert git(tree.path, "rev-parse", "HEAD") == left.sha
    assert hub.status(tree).branch is None


def test_an_own_branch_made_symbolic_never_moves_what_it_names(hub: Hub, tree: Worktree) -> None:
    old = hub.target()
    (hub.path / "refs/heads/harness/x-1/1").write_text("ref: refs/heads/main\n")
    (tree.path / "new").write_text("new\n")
    left = hub.commit_leftovers(tree, "rest")
    assert hub.target() == old
    assert left.head is None or left.sha is not None


def test_a_detached_head_is_committed_on(hub: Hub, tree: Worktree) -> None:
    git(tree.path, "switch", "-q", "--detach")
    (tree.path / "new").write_text("new\n")
    left = hub.commit_leftovers(tree, "rest")
    assert git(tree.path, "rev-parse", "HEAD") == left.sha
    assert git(tree.path, "rev-parse", "HEAD^") == tree.base


def test_an_orphan_branch_is_committed_and_then_refused_as_a_result(hub: Hub, tree: Worktree) -> None:
    git(tree.path, "switch", "-q", "--orphan", "harness/x-1/new")
    (tree.path / "new").write_text("new\n")
    left = hub.commit_leftovers(tree, "rest")
    assert left.sha is not None
    assert "does not contain" in hub.faults(tree.base, left.sha)[0]
    conflict = hub.build_merge(hub.target(), "x-1", 1, left.sha, "x-1")
    assert "no commit in common" in conflict.messages  # type: ignore[union-attr]


def test_a_worktree_without_its_git_file_is_told_and_not_committed(hub: Hub, tree: Worktree) -> None:
    (tree.path / ".git").unlink()
    (tree.path / "new").write_text("new\n")
    left = hub.commit_leftovers(tree, "rest")
    assert (left.sha, left.fault) == (None, ".git is missing")
    seen = hub.status(tree)
    assert seen.fault == ".git is missing"
    (told,) = seen.dirty
    assert told.startswith(".git: .git is missing. Put back a file .git with the one line `")


@pytest.mark.parametrize("damage", ["removed", "a repository", "a link", "other words"])
def test_what_is_told_about_a_lost_git_file_makes_the_worktree_whole_again(
    hub: Hub, tree: Worktree, damage: str
) -> None:
    file = tree.path / ".git"
    text = file.read_text()
    file.unlink()
    if damage == "a repository":
        git(tree.path, "init", "-q")
    elif damage == "a link":
        file.symlink_to("elsewhere")
    elif damage == "other words":
        file.write_text("gitdir: elsewhere\n")
    seen = hub.status(tree)
    assert f"`{text.strip()}`" in seen.dirty[0]
    assert ("Remove the repository" in seen.remedy) == (damage == "a repository")
    if damage == "a repository":
        shutil.rmtree(file)
    file.unlink(missing_ok=True)
    file.write_text(text)
    assert hub.status(tree).clean


def test_a_worktree_whose_records_in_the_hub_were_damaged_cannot_be_mended_from_inside(
    hub: Hub, tree: Worktree
) -> None:
    (hub.path / "worktrees" / tree.admin / "gitdir").write_text("elsewhere\n")
    assert (
        hub.status(tree).remedy == "It cannot be mended from inside; the next attempt gets another worktree"
    )


def test_a_lock_left_in_the_index_does_not_stop_the_commit(hub: Hub, tree: Worktree) -> None:
    (hub.path / "worktrees" / tree.admin / "index.lock").write_text("")
    (tree.path / "new").write_text("new\n")
    assert hub.commit_leftovers(tree, "rest").sha is not None


# ---- salvage ---------------------------------------------------------------------------------------------------------


def test_salvage_saves_everything_and_says_it_once(hub: Hub, tree: Worktree) -> None:
    first = work(hub, tree)
    git(tree.path, "switch", "-q", "-c", "harness/x-1/idea")
    idea = commit(tree.path, "idea", "x")
    git(tree.path, "switch", "-q", "--detach", first)
    (tree.path / "staged").write_text("staged\n")
    git(tree.path, "add", "staged")
    (tree.path / "staged").write_text("then changed\n")
    (tree.path / "untracked").write_text("new\n")
    saved = hub.salvage(tree, "x-1", 1)
    assert saved.kept is None
    kinds = sorted(name.rsplit("/", 1)[1].rsplit("-", 1)[0] for name in saved.refs)
    assert kinds == ["branch", "branch", "index", "tree"]
    by_kind = {name.rsplit("/", 1)[1].rsplit("-", 1)[0]: sha for name, sha in hub.salvaged("x-1").items()}
    assert git(hub.path, "show", f"{by_kind['index']}:staged") == "staged"
    assert git(hub.path, "show", f"{by_kind['tree']}:staged") == "then changed"
    assert git(hub.path, "show", f"{by_kind['tree']}:untracked") == "new"
    assert git(hub.path, "rev-parse", f"{by_kind['tree']}^") == first
    assert idea in hub.salvaged("x-1").values()
    assert (tree.path / "untracked").exists()
    assert hub.salvage(tree, "x-1", 1).refs == ()


def test_salvage_of_a_pinned_clean_result_adds_nothing(hub: Hub, tree: Worktree) -> None:
    sha = work(hub, tree)
    work(hub, tree, "more", "x")
    hub.pin("x-1", 1, git(tree.path, "rev-parse", "HEAD"))
    assert hub.salvage(tree, "x-1", 1).refs == ()
    assert sha


def test_commits_that_only_the_reflog_knows_are_saved(hub: Hub, tree: Worktree) -> None:
    dropped = work(hub, tree)
    git(tree.path, "reset", "-q", "--hard", tree.base)
    amended = work(hub, tree, "other")
    git(tree.path, "commit", "-q", "--amend", "-m", "better")
    hub.pin("x-1", 1, git(tree.path, "rev-parse", "HEAD"))
    saved = hub.salvage(tree, "x-1", 1)
    assert all("/lost-" in name for name in saved.refs)
    assert {dropped, amended} == set(hub.salvaged("x-1").values())


def test_commits_on_a_detached_head_are_saved(hub: Hub, tree: Worktree) -> None:
    git(tree.path, "switch", "-q", "--detach")
    sha = work(hub, tree)
    git(tree.path, "switch", "-q", "harness/x-1/1")
    hub.salvage(tree, "x-1", 1)
    assert sha in hub.salvaged("x-1").values()


def test_a_forged_reflog_is_no_obstacle(hub: Hub, tree: Worktree) -> None:
    sha = work(hub, tree)
    log = hub.path / "worktrees" / tree.admin / "logs/HEAD"
    log.write_bytes(
        log.read_bytes() + b"garbage\n" + b"0" * 40 + b" " + b"e" * 40 + b" x <x> 0 +0000\treset: moving\n"
    )
    hub.salvage(tree, "x-1", 1)
    assert set(hub.salvaged("x-1").values()) == {sha}


def test_stashes_of_the_attempt_are_saved_and_dropped_and_others_stay(hub: Hub, tree: Worktree) -> None:
    other = hub.prepare("agent-2", "y-1", 1, hub.target())
    for place, text in ((tree, "mine 1"), (other, "theirs"), (tree, "mine 2")):
        (place.path / "a.txt").write_text(text)
        git(place.path, "stash", "push", "-q", "-m", text)
    hub.salvage(tree, "x-1", 1)
    assert [
        line.partition(": ")[2]
        for line in git(hub.path, "reflog", "show", "--format=%gs", "refs/stash").split("\n")
    ] == ["theirs"]
    saved = sorted(git(hub.path, "show", f"{sha}:a.txt") for sha in hub.salvaged("x-1").values())
    assert saved == ["mine 1", "mine 2"]
    hub.salvage(other, "y-1", 1)
    assert git(hub.path, "rev-parse", "--verify", "-q", "refs/stash", ok=(1,)) == ""
    (other.path / "a.txt").write_text("later")
    git(other.path, "stash")
    git(other.path, "stash", "pop", "-q")


def test_a_stash_that_moves_while_it_is_dropped_is_left(at: Desk, hub: Hub, tree: Worktree) -> None:
    other = hub.prepare("agent-2", "y-1", 1, hub.target())
    (tree.path / "a.txt").write_text("mine")
    git(tree.path, "stash", "push", "-q")

    def intrude(args: tuple[str, ...]) -> None:
        if args[1] == "rev-parse" and args[-1].startswith("refs/stash"):
            at.probe.before = lambda _: None
            (other.path / "a.txt").write_text("theirs")
            git(other.path, "stash", "push", "-q")

    at.probe.before = intrude
    hub.salvage(tree, "x-1", 1)
    assert "harness/y-1/1" in git(hub.path, "reflog", "show", "--format=%gs", "-1", "refs/stash")
    hub.salvage(tree, "x-1", 1)
    assert "harness/x-1/1" not in git(hub.path, "reflog", "show", "--format=%gs", "refs/stash")
    assert "harness/y-1/1" in git(hub.path, "reflog", "show", "--format=%gs", "refs/stash")


def test_salvage_moves_a_tree_aside_that_refs_cannot_hold(layout: Layout, hub: Hub, tree: Worktree) -> None:
    (tree.path / "untracked").write_text("x")
    git(tree.path, "init", "-q", "nested")
    commit(tree.path / "nested", "inner", "x")
    saved = hub.salvage(tree, "x-1", 1)
    assert saved.kept == layout.kept / "x-1.1"
    assert any("/tree-" in name for name in saved.refs)
    assert hub.find("agent-1") is None
    assert hub.salvage(tree, "x-1", 1).refs == ()
    assert not hub.prepare("agent-1", "y-1", 1, hub.target()).reused


def test_salvage_leaves_a_slot_alone_that_was_given_to_another_attempt(hub: Hub, tree: Worktree) -> None:
    second = hub.prepare("agent-1", "y-1", 1, hub.target())
    (second.path / "a.txt").write_text("of y\n")
    assert hub.salvage(tree, "x-1", 1).refs == ()
    assert hub.salvaged("x-1") == {}


def test_a_commit_that_is_damaged_does_not_keep_the_others_from_being_saved(hub: Hub, tree: Worktree) -> None:
    good = work(hub, tree)
    git(tree.path, "switch", "-q", "-c", "harness/x-1/bad")
    bad = commit(tree.path, "bad", "x")
    git(tree.path, "switch", "-q", "harness/x-1/1")
    (hub.path / "objects" / bad[:2] / bad[2:]).unlink()
    hub.salvage(tree, "x-1", 1)
    assert set(hub.salvaged("x-1").values()) == {good}


def test_what_cannot_be_saved_for_lack_of_space_is_not_taken_for_saved(hub: Hub, tree: Worktree) -> None:
    """A ref that cannot be written although its commit is whole: the worktree stays as it is."""
    (tree.path / "a.txt").write_text("precious\n")
    (hub.path / "refs/harness").mkdir(exist_ok=True)
    (hub.path / "refs/harness/salvage").write_text("in the way")
    with pytest.raises(GitCommandError):
        hub.prepare("agent-1", "y-1", 1, hub.target())
    assert (tree.path / "a.txt").read_text() == "precious\n"
    (hub.path / "refs/harness/salvage").unlink()
    assert hub.prepare("agent-1", "y-1", 1, hub.target()).reused
    assert len(hub.salvaged("x-1")) == 1


# ---- pins ------------------------------------------------------------------------------------------------------------


def test_a_pinned_result_survives_branch_d_and_gc_by_another_agent(hub: Hub, tree: Worktree) -> None:
    sha = work(hub, tree)
    hub.pin("x-1", 1, sha)
    hub.pin("x-1", 1, sha)
    other = hub.prepare("agent-2", "y-1", 1, hub.target())
    hub.prepare("agent-1", "z-1", 1, hub.target())
    git(other.path, "branch", "-D", "harness/x-1/1")
    git(other.path, "reflog", "expire", "--expire=now", "--all")
    git(other.path, "gc", "-q", "--prune=now")
    assert git(hub.path, "rev-parse", "refs/harness/attempt/x-1/1") == sha
    built = hub.build_merge(hub.target(), "x-1", 1, sha, "x-1")
    assert hasattr(built, "sha")
    assert hub.check() == ()
    assert hub.prepare("agent-2", "y-1", 2, hub.target()).reused


@pytest.mark.parametrize("what", ["HEAD", "HEAD^{tree}", "HEAD:new.txt"])
def test_a_result_that_lacks_an_object_is_not_pinned(hub: Hub, tree: Worktree, what: str) -> None:
    sha = work(hub, tree)
    name = git(tree.path, "rev-parse", what)
    (hub.path / "objects" / name[:2] / name[2:]).unlink()
    with pytest.raises(BrokenCommitError, match="cannot be used by git"):
        hub.pin("x-1", 1, sha)
    assert git(hub.path, "for-each-ref", "refs/harness/attempt") == ""


def test_a_commit_of_the_target_is_nobodys_result(at: Desk, hub: Hub, tree: Worktree) -> None:
    """`git merge --ff-only` of the target, which went on meanwhile."""
    commit(at.upstream, "theirs", "x\n", branch="main")
    hub.refresh()
    git(tree.path, "merge", "-q", "--ff-only", hub.target())
    assert hub.head(tree) == hub.target()
    assert hub.is_targets(tree.base, hub.head(tree))
    assert hub.is_targets(tree.base, tree.base)
    assert not hub.is_targets(tree.base, work(hub, tree))


def test_what_an_agent_took_from_the_target_is_not_its_change(at: Desk, hub: Hub, tree: Worktree) -> None:
    """And what it undid of it, is."""
    first = work(hub, tree)
    assert hub.fork(tree.base, first) == tree.base
    commit(at.upstream, "theirs", "x\n", branch="main")
    hub.refresh()
    git(tree.path, "merge", "-q", "-m", "follow", hub.target())
    sha = git(tree.path, "rev-parse", "HEAD")
    assert [c.path for c in hub.changed_files(hub.fork(tree.base, sha), sha)] == ["new.txt"]
    git(tree.path, "reset", "-q", "--hard", first)
    git(tree.path, "merge", "-q", "-s", "ours", "-m", "undo", hub.target())
    sha = git(tree.path, "rev-parse", "HEAD")
    changes = {(c.status, c.path) for c in hub.changed_files(hub.fork(tree.base, sha), sha)}
    assert changes == {("A", "new.txt"), ("D", "theirs")}


def test_a_result_that_a_strict_repository_would_never_take_is_not_pinned(hub: Hub, tree: Worktree) -> None:
    """`receive.fsckObjects`: neither it nor anything that is merged later could be published."""
    work(hub, tree)
    said = git(tree.path, "cat-file", "commit", "HEAD")
    forged = re.sub(r"(?m)^author .*$", "author nobody <x@y> notadate", said) + "\n"
    sha = git(
        *(tree.path, "hash-object", "-t", "commit", "-w", "--literally", "--stdin"), stdin=forged.encode()
    )
    with pytest.raises(BrokenCommitError, match="badDate"):
        hub.pin("x-1", 1, sha)
    assert git(hub.path, "for-each-ref", "refs/harness/attempt") == ""


def test_what_is_badly_made_in_the_target_is_not_held_against_a_result(
    layout: Layout, tmp_path: Path
) -> None:
    up = person(tmp_path / "up", {".gitattributes": "x" * 3000 + " text\n"})
    hub = desk(layout, up).open()
    tree = hub.prepare("agent-1", "x-1", 1, hub.target())
    sha = work(hub, tree)
    hub.pin("x-1", 1, sha)
    assert git(hub.path, "rev-parse", "refs/harness/attempt/x-1/1") == sha
    worse = commit(tree.path, ".gitattributes", "y" * 3000 + " text\n")
    with pytest.raises(BrokenCommitError, match="gitattributesLineLength"):
        hub.pin("x-1", 2, worse)


def test_a_pin_leaves_nothing_in_the_hub_that_nobody_would_remove(at: Desk, hub: Hub, tree: Worktree) -> None:
    sha = work(hub, tree)
    before = {p for p in hub.path.rglob("*") if "worktrees" not in p.parts}
    full = Full(at.probe.runner, "pack-objects")
    at.probe.runner = full  # type: ignore[assignment]
    with pytest.raises(GitCommandError) as caught:
        hub.pin("x-1", 1, sha)
    assert caught.value.passing
    assert full.folder is not None
    assert full.folder.parent == hub.repo.shelf
    assert not full.folder.exists()
    assert {p for p in hub.path.rglob("*") if "worktrees" not in p.parts} == before
    at.probe.runner = full.runner  # type: ignore[assignment]
    hub.pin("x-1", 1, hub.target())  # an empty pack


@dataclass
class Full:
    """A runner whose git finds the disk full."""

    runner: CommandRunner
    command: str
    folder: Path | None = None

    def run(self, command: Command, /) -> Ended:
        if self.command not in command.argv:
            return self.runner.run(command)
        self.folder = Path(command.env["GIT_OBJECT_DIRECTORY"])
        said = b"fatal: sha1 file 'pack/tmp_pack_x' write error. Out of diskspace"
        return Ended(reason=EndReason.EXITED, exit_code=128, stderr=said)


def test_a_result_that_is_not_what_its_name_says_is_not_pinned(hub: Hub, tree: Worktree) -> None:
    sha = work(hub, tree)
    good, bad = (
        git(tree.path, "hash-object", "-w", "--stdin", stdin=text) for text in (b"work\n", b"other\n")
    )
    objects = hub.path / "objects"
    (objects / good[:2] / good[2:]).unlink()
    (objects / good[:2] / good[2:]).write_bytes((objects / bad[:2] / bad[2:]).read_bytes())
    with pytest.raises(BrokenCommitError):
        hub.pin("x-1", 1, sha)


def test_a_folder_that_git_cannot_look_into_does_not_stop_the_merge_lane_or_a_look(
    at: Desk, hub: Hub, tree: Worktree
) -> None:
    hub.checkout_merged(hub.target())
    at.probe.runner = Closed(at.probe.runner, "status")  # type: ignore[assignment]
    hub.checkout_merged(hub.target())
    assert hub.status(tree).clean


@dataclass(frozen=True)
class Dying:
    """A runner whose git is killed."""

    runner: CommandRunner
    command: str

    def run(self, command: Command, /) -> Ended:
        ended = self.runner.run(command)
        return replace(ended, exit_code=None, signal=9) if self.command in command.argv else ended


@pytest.mark.parametrize("command", ["pack-objects", "index-pack"])
def test_a_git_that_is_killed_does_not_call_a_result_broken(
    at: Desk, hub: Hub, tree: Worktree, command: str
) -> None:
    sha = work(hub, tree)
    at.probe.runner = Dying(at.probe.runner, command)  # type: ignore[assignment]
    with pytest.raises(GitCommandError) as caught:
        hub.pin("x-1", 1, sha)
    assert caught.value.passing


def test_retired_items_leave_no_branch_and_no_pin(hub: Hub, tree: Worktree) -> None:
    hub.pin("x-1", 1, work(hub, tree))
    other = hub.prepare("agent-2", "x-11", 1, hub.target())
    assert hub.retire("x-1") == 2
    assert hub.retire("x-1") == 0
    assert (
        git(hub.path, "for-each-ref", "--format=%(refname)", "refs/heads/harness")
        == f"refs/heads/{other.branch}"
    )


def test_a_rename_names_both_sides_and_diff_shows_it(hub: Hub, tree: Worktree) -> None:
    git(tree.path, "mv", "a.txt", "moved.txt")
    git(tree.path, "rm", "-q", "src/b.txt")
    left = hub.commit_leftovers(tree, "move")
    assert left.sha is not None
    seen = {(c.status, c.was, c.path) for c in hub.changed_files(tree.base, left.sha)}
    assert seen == {("R", "a.txt", "moved.txt"), ("D", None, "src/b.txt")}
    assert "rename to moved.txt" in hub.diff(tree.base, left.sha)
    assert hub.is_ancestor(tree.base, left.sha)
    assert not hub.is_ancestor(left.sha, tree.base)


def test_names_that_git_refuses_to_check_out_are_faults(hub: Hub, tree: Worktree) -> None:
    blob = git(tree.path, "hash-object", "-w", "--stdin", stdin=b"evil")
    evil = git(tree.path, "mktree", stdin=f"100644 blob {blob}\tpre-commit\n".encode())
    top = git(
        tree.path, "mktree", stdin=f"040000 tree {evil}\t.GIT\n100644 blob {blob}\t.gitmodules\n".encode()
    )
    sha = git(tree.path, "commit-tree", top, "-p", tree.base, "-m", "evil")
    assert len(hub.faults(tree.base, sha)) == 2


@dataclass(frozen=True)
class Closed:
    """A runner whose git cannot look into a folder, which it only mentions."""

    runner: CommandRunner
    command: str

    def run(self, command: Command, /) -> Ended:
        ended = self.runner.run(command)
        if command.argv[1] == self.command:
            return replace(ended, stderr=b"warning: could not open directory 'src/': Permission denied\n")
        return ended


@pytest.mark.parametrize("command", ["status", "add"])
def test_what_git_cannot_look_into_is_not_left_out_in_silence(
    at: Desk, hub: Hub, tree: Worktree, command: str
) -> None:
    (tree.path / "src/new").write_text("new\n")
    at.probe.runner = Closed(at.probe.runner, command)  # type: ignore[assignment]
    with pytest.raises(GitCommandError, match="could not open directory"):
        hub.commit_leftovers(tree, "rest")
