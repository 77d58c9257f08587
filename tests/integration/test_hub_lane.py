"""The lane and the target move by compare-and-swap only; a merge is recognised by what no agent can write."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from harness.errors import GitError
from harness.hub import Built, Conflict, GitCommandError, Hub, Swap, merging
from harness.hub.git import SETTINGS
from harness.hub.lane import Lane
from harness.layout import Layout
from harness.logs import Event
from tests.hubs import Desk, commit, desk, git, merge, person, submit, work
from tests.support import running, until


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Git gives a lock up soon, not after two seconds; how often it is asked again stays what it is."""
    monkeypatch.setitem(SETTINGS, "core.filesRefLockTimeout", "50")


def taken(hub: Hub, epoch: str) -> Lane:
    held = hub.swap_lane(hub.lane(), epoch, None)
    assert held is not None
    return held


def built(hub: Hub, uid: str, sha: str, n: int = 1) -> Built:
    made = hub.build_merge(hub.target(), uid, n, sha, f"{uid}: work")
    assert isinstance(made, Built)
    return made


# ---- the lane --------------------------------------------------------------------------------------------------------


def test_the_lane_begins_empty_and_holds_what_was_swapped_in(at: Desk, hub: Hub) -> None:
    assert hub.lane() == Lane(blob=None, epoch="")
    pending = {"uid": "x-1", "n": 1, "verdict": {"v": 1, "n": 1, "returned": "conflict", "why": "ä"}}
    held = hub.swap_lane(hub.lane(), "e1", pending)
    assert held is not None
    assert at.open().lane() == held
    assert held.pending == pending


def test_of_two_who_take_the_lane_one_is_refused(at: Desk, hub: Hub) -> None:
    other = at.open()
    seen, seen_by_other = hub.lane(), other.lane()
    assert hub.swap_lane(seen, "e1", None) is not None
    assert other.swap_lane(seen_by_other, "e2", None) is None
    assert hub.lane().epoch == "e1"
    assert other.swap_lane(other.lane(), "e2", None) is not None
    assert hub.swap_lane(Lane(blob=None, epoch=""), "e3", None) is None


def test_a_swap_whose_reply_was_lost_counts_as_done(at: Desk, hub: Hub) -> None:
    first = hub.lane()

    def twice(args: tuple[str, ...]) -> None:
        """Another process of this root did exactly the same: as if our own update had been made and the reply lost."""
        if args[1] == "update-ref":
            at.probe.before = lambda _: None
            blob = git(
                hub.path, "hash-object", "-w", "--stdin", stdin=b'{"epoch": "e1", "pending": null, "v": 1}\n'
            )
            git(hub.path, "update-ref", "refs/harness/lane", blob)

    at.probe.before = twice
    assert hub.swap_lane(first, "e1", None) is not None


def test_a_lane_that_cannot_be_read_is_an_error_that_names_fsck(hub: Hub) -> None:
    for text in (b"torn", b'{"v": 9, "epoch": "e", "pending": null}', b"[]"):
        blob = git(hub.path, "hash-object", "-w", "--stdin", stdin=text)
        git(hub.path, "update-ref", "refs/harness/lane", blob)
        with pytest.raises(GitError, match="fsck"):
            hub.lane()


def test_the_blob_is_json_with_a_version(hub: Hub) -> None:
    taken(hub, "e1")
    assert json.loads(git(hub.path, "cat-file", "blob", "refs/harness/lane")) == {
        "v": 1,
        "epoch": "e1",
        "pending": None,
    }


# ---- the target ------------------------------------------------------------------------------------------------------


def test_r26_a_merger_that_lost_the_lane_moves_nothing(at: Desk, hub: Hub) -> None:
    sha = submit(hub, "x-1")
    a = taken(hub, "a")
    made, old = built(hub, "x-1", sha), hub.target()
    b = at.open()
    returned = b.swap_lane(taken(b, "b"), "b", {"uid": "x-1", "n": 1, "verdict": {"returned": "gate"}})
    assert returned is not None
    assert hub.swap_target(a, made.sha, old) is Swap.LANE
    assert hub.target() == old


def test_r27_what_was_decided_in_the_lane_is_there_for_the_next_taker(at: Desk, hub: Hub) -> None:
    pending = {"uid": "x-1", "n": 1, "verdict": {"returned": "gate"}}
    assert hub.swap_lane(taken(hub, "a"), "a", pending) is not None
    assert at.open().lane().pending == pending


def test_r28_a_merger_killed_after_the_move_is_found_out_by_the_next(at: Desk, hub: Hub) -> None:
    sha = submit(hub, "x-1")
    merged = merge(hub, "x-1", 1, sha)
    other = at.open()
    assert other.merged_as(other.target(), "x-1", 1, sha) == merged
    assert other.merged_as(other.target(), "x-1", 2, sha) is None
    assert other.merged_as(other.target(), "y-1", 1, sha) is None


@pytest.mark.parametrize("page", [1, 2, 3, 1000])
def test_all_merges_of_the_target_are_read_at_once(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    monkeypatch.setattr(merging, "PAGE", page)
    before, made = hub.target(), []
    for k in range(2):
        sha = submit(hub, f"x-{k}", name=f"{k}.txt")
        made.append((f"x-{k}", 1, sha, merge(hub, f"x-{k}", 1, sha)))
    assert [(m.uid, m.n, m.submitted, m.sha) for m in hub.merges(hub.target())] == made
    assert hub.merges(before) == []


@pytest.mark.parametrize("damage", ["nothing", "empty", "torn", "gone"])
def test_commits_that_cannot_be_read_are_told_from_the_others(at: Desk, hub: Hub, damage: str) -> None:
    good, bad, target = submit(hub, "x-1"), submit(hub, "y-1", name="other.txt", slot="agent-2"), hub.target()
    tree = git(hub.path, "rev-parse", f"{good}^{{tree}}")
    loose = hub.path / "objects" / bad[:2] / bad[2:]
    loose.chmod(0o600)
    if damage == "gone":
        loose.unlink()
    elif damage != "nothing":
        loose.write_bytes(b"" if damage == "empty" else loose.read_bytes()[:40])
    lost = {"0" * 40, tree, "main", "", "no name", "two\nlines"} | ({bad} if damage != "nothing" else set())
    assert hub.missing({good, bad, target, *lost}) == lost
    assert hub.missing({good, bad, target, "0" * 40}) == {"0" * 40} | lost & {bad}
    assert hub.missing(set()) == set()


def test_r31_a_target_that_moved_is_never_overwritten(at: Desk, hub: Hub) -> None:
    one, two = submit(hub, "x-1"), submit(hub, "y-1", name="other.txt", slot="agent-2")
    held = taken(hub, "a")
    made, old = built(hub, "x-1", one), hub.target()
    git(hub.path, "update-ref", "refs/heads/main", two)  # a person
    assert hub.swap_target(held, made.sha, old) is Swap.TARGET
    assert hub.target() == two
    again = built(hub, "x-1", one)
    assert hub.swap_target(held, again.sha, two) is Swap.OK
    assert git(hub.path, "rev-parse", f"{hub.target()}^1") == two


def test_a_move_whose_reply_was_lost_counts_as_made(hub: Hub) -> None:
    sha = submit(hub, "x-1")
    held, old = taken(hub, "a"), hub.target()
    made = built(hub, "x-1", sha)
    assert hub.swap_target(held, made.sha, old) is Swap.OK
    assert hub.swap_target(held, made.sha, old) is Swap.OK


def test_a_move_to_an_object_that_does_not_exist_is_an_error_and_no_refusal(hub: Hub) -> None:
    held = taken(hub, "a")
    with pytest.raises(GitCommandError):
        hub.swap_target(held, "e" * 40, hub.target())


@pytest.mark.parametrize("name", ["refs/heads/main.lock", "refs/harness/lane.lock"])
@pytest.mark.usefixtures("_impatient")
def test_a_lock_left_by_a_killed_git_is_removed_when_nobody_holds_it(at: Desk, hub: Hub, name: str) -> None:
    sha = submit(hub, "x-1")
    held, old = taken(hub, "a"), hub.target()
    made = built(hub, "x-1", sha)
    (hub.path / name).write_text("")
    assert hub.swap_target(held, made.sha, old) is Swap.OK
    assert at.emitted(Event.STALE_LOCK_REMOVED) == [{"project": "app", "file": name}]


@pytest.mark.usefixtures("_impatient")
def test_a_lock_that_a_living_process_has_open_is_never_removed(at: Desk, hub: Hub, tmp_path: Path) -> None:
    held, old = taken(hub, "a"), hub.target()
    made = built(hub, "x-1", submit(hub, "x-1"))
    lock = hub.path / "refs/heads/main.lock"
    with running(["sh", "-c", f"exec 9>'{lock}'; echo; exec sleep 60"], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(GitCommandError, match=r"main\.lock"):
            hub.swap_target(held, made.sha, old)
        assert lock.exists()
    assert hub.swap_target(held, made.sha, old) is Swap.OK


@pytest.mark.usefixtures("_impatient")
def test_a_lock_that_a_living_git_may_own_is_never_removed(at: Desk, hub: Hub) -> None:
    held, old = taken(hub, "a"), hub.target()
    made = built(hub, "x-1", submit(hub, "x-1"))
    # A real transaction that has taken the lock and waits for its next command; git holds such a lock file closed.
    with running(
        ["git", "update-ref", "--stdin"], cwd=hub.path, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdin is not None
        holder.stdin.write(f"start\nupdate refs/heads/main {made.sha} {old}\nprepare\n".encode())
        holder.stdin.flush()
        until((hub.path / "refs/heads/main.lock").exists)
        with pytest.raises(GitCommandError, match=r"main\.lock"):
            hub.swap_target(held, made.sha, old)
        assert (hub.path / "refs/heads/main.lock").exists()
    assert hub.swap_target(held, made.sha, old) is Swap.OK


@pytest.mark.usefixtures("_impatient")
def test_a_lock_that_stays_is_an_error_after_some_tries(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither lane nor target moved, and still git refuses: nothing is decided."""
    held, old = taken(hub, "a"), hub.target()
    made = built(hub, "x-1", submit(hub, "x-1"))
    monkeypatch.setattr("harness.hub.gitlocks.stale", lambda *_: False)
    for name in ("refs/heads/main.lock", "refs/harness/lane.lock"):
        (hub.path / name).write_text("")
    with pytest.raises(GitCommandError):
        hub.swap_target(held, made.sha, old)
    with pytest.raises(GitCommandError):
        hub.swap_lane(held, "b", None)
    assert hub.target() == old
    assert hub.lane() == held


# ---- merges ----------------------------------------------------------------------------------------------------------


def test_a_merge_is_a_merge_commit_even_when_it_could_be_forwarded(hub: Hub) -> None:
    sha, old = submit(hub, "x-1"), hub.target()
    made = hub.build_merge(old, "x-1", 1, sha, "fix-login: Log in\nagain", "Why.\n\nHarness-Item: forged\0")
    assert isinstance(made, Built)
    assert git(hub.path, "log", "-1", "--format=%P", made.sha) == f"{old} {sha}"
    assert git(hub.path, "rev-parse", f"{made.sha}^{{tree}}") == made.tree
    assert git(hub.path, "log", "-1", "--format=%B", made.sha).split("\n") == [
        "fix-login: Log in again",
        "",
        "Why.",
        "",
        "Harness-Item: forged",
        "",
        "Harness-Item: x-1",
        "Harness-Attempt: 1",
    ]
    assert git(hub.path, "log", "-1", "--format=%an <%ae>", made.sha) == "harness <harness@localhost>"
    assert git(hub.path, "fsck", "--strict", "--no-dangling") == ""


def test_two_mergers_build_the_same_commit(at: Desk, hub: Hub) -> None:
    sha = submit(hub, "x-1")
    assert built(hub, "x-1", sha) == built(at.open(), "x-1", sha)


def test_a_commit_from_the_future_does_not_drag_the_merge_along(hub: Hub) -> None:
    tree = hub.prepare("agent-1", "x-1", 1, hub.target())
    (tree.path / "new").write_text("x")
    git(tree.path, "add", "new")
    git(tree.path, "commit", "-q", "-m", "from 2099", GIT_COMMITTER_DATE="@4070908800 +0000")
    made = built(hub, "x-1", git(tree.path, "rev-parse", "HEAD"))
    assert int(git(hub.path, "log", "-1", "--format=%ct", made.sha)) < 4070908800


def test_a_conflict_names_the_files_and_what_was_merged_meanwhile(hub: Hub) -> None:
    one = hub.prepare("agent-1", "x-1", 1, hub.target())
    two = hub.prepare("agent-2", "y-1", 1, hub.target())
    first = commit(one.path, "a.txt", "one way\n", "Say it one way")
    second = commit(two.path, "a.txt", "another way\n", "Say it another way")
    merge(hub, "x-1", 1, first)
    found = hub.build_merge(hub.target(), "y-1", 1, second, "y-1")
    assert isinstance(found, Conflict)
    assert found.files == ("a.txt",)
    assert found.titles == ("Say it one way",)
    assert found.submitted == ("Say it another way",)
    assert "CONFLICT (content)" in found.messages
    assert "Auto-merging" not in found.messages


def test_conflicts_in_files_whose_names_are_no_text_are_told(hub: Hub) -> None:
    name = ":(glob)* \n\udcff"
    one = hub.prepare("agent-1", "x-1", 1, hub.target())
    two = hub.prepare("agent-2", "y-1", 1, hub.target())
    first = commit_literally(one.path, name, "one")
    second = commit_literally(two.path, name, "two")
    merge(hub, "x-1", 1, first)
    found = hub.build_merge(hub.target(), "y-1", 1, second, "y-1")
    assert isinstance(found, Conflict)
    assert found.files == (name,)
    assert found.titles == ("weird",)


def commit_literally(where: Path, name: str, text: str) -> str:
    (where / name).write_text(text)
    git(where, "--literal-pathspecs", "add", "--", name)
    git(where, "commit", "-q", "-m", "weird")
    return git(where, "rev-parse", "HEAD")


def took(hub: Hub, sha: str, *how: str) -> str:
    """Another item, which has merged somebody's commit by itself. -> its own"""
    tree = hub.prepare("agent-2", "y-1", 1, hub.target())
    work(hub, tree, "own.txt")
    git(tree.path, "merge", "-q", *how, "-m", "taken", sha)
    commit_of = git(tree.path, "rev-parse", "HEAD")
    hub.pin("y-1", 1, commit_of)
    return commit_of


def test_work_that_another_item_took_and_dropped_is_merged_all_the_same(hub: Hub) -> None:
    victim = submit(hub, "x-1", name="important.txt", text="mine\n")
    merge(hub, "y-1", 1, took(hub, victim, "-s", "ours"))
    assert "important.txt" not in git(hub.path, "ls-tree", "--name-only", hub.target()).split()
    merge(hub, "x-1", 1, victim)
    assert git(hub.path, "show", f"{hub.target()}:important.txt") == "mine"
    assert git(hub.path, "show", f"{hub.target()}:own.txt") == "work"


def test_work_that_another_item_took_and_kept_is_there_once(hub: Hub) -> None:
    victim = submit(hub, "x-1", name="important.txt", text="mine\n")
    merge(hub, "y-1", 1, took(hub, victim))
    tree = git(hub.path, "rev-parse", f"{hub.target()}^{{tree}}")
    built = merge(hub, "x-1", 1, victim)
    assert git(hub.path, "rev-parse", f"{built}^{{tree}}") == tree


def test_work_that_another_item_took_and_changed_is_a_conflict(hub: Hub) -> None:
    victim = submit(hub, "x-1", name="important.txt", text="mine\n")
    tree = hub.prepare("agent-2", "y-1", 1, hub.target())
    git(tree.path, "merge", "-q", victim)
    other = commit(tree.path, "important.txt", "theirs\n")
    hub.pin("y-1", 1, other)
    merge(hub, "y-1", 1, other)
    found = hub.build_merge(hub.target(), "x-1", 1, victim, "x-1")
    assert isinstance(found, Conflict)
    assert found.files == ("important.txt",)


@pytest.mark.parametrize("how", ["--ff-only", "--no-ff"])
def test_what_a_person_merged_and_reverted_does_not_come_back(at: Desk, hub: Hub, how: str) -> None:
    tree = hub.prepare("agent-1", "x-1", 1, hub.target())
    work(hub, tree, "one.txt")
    sha = work(hub, tree, "two.txt")
    hub.pin("x-1", 1, sha)
    up = at.upstream
    git(up, "fetch", "-q", str(hub.path), sha)
    git(up, "switch", "-q", "main")
    git(up, "merge", "-q", how, *(("-m", "by hand") if how == "--no-ff" else ()), "FETCH_HEAD")
    if how == "--no-ff":
        git(up, "revert", "--no-edit", "-m", "1", "HEAD")
    else:
        git(up, "revert", "--no-edit", "HEAD", "HEAD^")
    git(up, "switch", "-q", "work")
    hub.refresh()
    tree_of = git(hub.path, "rev-parse", f"{hub.target()}^{{tree}}")
    built = hub.build_merge(hub.target(), "x-1", 1, sha, "x-1")
    assert isinstance(built, Built)
    assert built.tree == tree_of


# ---- attributes ----------------------------------------------------------------------------------------------------


def both_append(hub: Hub, name: str) -> Built | Conflict:
    """Two items add different lines to the end of the same file; the second is merged onto the first."""
    base = hub.target()
    text = git(hub.path, "show", f"{base}:{name}") + "\n"
    shas = []
    for uid in ("x-1", "x-2"):
        worktree = hub.prepare("agent-1", uid, 1, base)
        shas.append(commit(worktree.path, name, f"{text}{uid}\n"))
    merge(hub, "x-1", 1, shas[0])
    return hub.build_merge(hub.target(), "x-2", 1, shas[1], "x-2: work")


@pytest.mark.parametrize(
    ("attributes", "name"),
    [
        ({".gitattributes": "log merge=union\n"}, "log"),
        ({"docs/.gitattributes": "*.md merge=union\n"}, "docs/changes.md"),
        (
            {".gitattributes": "[attr]list merge=union\n", "docs/.gitattributes": "*.md list\n"},
            "docs/changes.md",
        ),
        ({"döcs/.gitattributes": "*.md merge=union\n"}, "döcs/changes.md"),
    ],
    ids=["top", "folder", "macro", "name"],
)
def test_files_that_the_target_merges_by_union_do_not_conflict(
    layout: Layout, tmp_path: Path, attributes: dict[str, str], name: str
) -> None:
    up = person(tmp_path / "up", {name: "base\n", **attributes})
    hub = desk(layout, up).open()
    made = both_append(hub, name)
    assert isinstance(made, Built)
    assert git(hub.path, "show", f"{made.sha}:{name}") == "base\nx-1\nx-2"
    assert not list(hub.repo.shelf.glob("attributes.*"))


def test_files_that_the_target_never_merges_conflict_although_their_text_could_be_merged(
    layout: Layout, tmp_path: Path
) -> None:
    lines = "".join(f"{k}\n" for k in range(20))
    hub = desk(layout, person(tmp_path / "up", {"lock": lines, ".gitattributes": "lock -merge\n"})).open()
    base = hub.target()
    first = commit(hub.prepare("agent-1", "x-1", 1, base).path, "lock", "first\n" + lines)
    second = commit(hub.prepare("agent-1", "x-2", 1, base).path, "lock", lines + "last\n")
    merge(hub, "x-1", 1, first)
    made = hub.build_merge(hub.target(), "x-2", 1, second, "x-2: work")
    assert isinstance(made, Conflict)
    assert made.files == ("lock",)


def test_a_driver_that_an_agent_defines_is_never_run_by_a_merge(layout: Layout, tmp_path: Path) -> None:
    up = person(tmp_path / "up", {"log": "base\n", ".gitattributes": "log merge=evil\n"})
    hub = desk(layout, up).open()
    git(hub.path, "config", "merge.evil.driver", f"touch {tmp_path}/ran; exit 0")
    made = both_append(hub, "log")
    assert isinstance(made, Conflict)
    assert not (tmp_path / "ran").exists()


def test_attributes_that_only_the_submitted_commit_has_do_not_count(layout: Layout, tmp_path: Path) -> None:
    hub = desk(layout, person(tmp_path / "up", {"log": "base\n"})).open()
    base = hub.target()
    first = commit(hub.prepare("agent-1", "x-1", 1, base).path, "log", "base\none\n")
    tree = hub.prepare("agent-1", "x-2", 1, base).path
    commit(tree, ".gitattributes", "log merge=union\n")
    second = commit(tree, "log", "base\ntwo\n")
    merge(hub, "x-1", 1, first)
    assert isinstance(hub.build_merge(hub.target(), "x-2", 1, second, "x-2: work"), Conflict)


def test_what_a_killed_merge_left_of_attributes_is_swept_later(layout: Layout, tmp_path: Path) -> None:
    up = person(tmp_path / "up", {"log": "base\n", ".gitattributes": "log merge=union\n"})
    hub = desk(layout, up).open()
    old, new = hub.repo.shelf / "attributes.old", hub.repo.shelf / "attributes.new"
    for folder in (old, new):
        folder.mkdir()
    os.utime(old, (0, 0))
    assert isinstance(both_append(hub, "log"), Built)
    assert not old.exists()
    assert new.exists()


def test_a_forged_trailer_does_not_make_a_merge(hub: Hub) -> None:
    """An agent merges another's pinned commit itself, with the trailers of that item."""
    theirs = submit(hub, "y-1", name="y.txt")
    tree = hub.prepare("agent-2", "x-1", 1, hub.target())
    commit(tree.path, "x.txt", "x")
    message = "y-1: work\n\nHarness-Item: y-1\nHarness-Attempt: 1\n"
    git(tree.path, "merge", "-q", "--no-ff", "-m", message, theirs)
    mine = git(tree.path, "rev-parse", "HEAD")
    forged = git(hub.path, "commit-tree", f"{mine}^{{tree}}", "-p", mine, "-m", message)
    merge(hub, "x-1", 1, forged)
    assert hub.merged_as(hub.target(), "y-1", 1, theirs) is None
    assert hub.merged_as(hub.target(), "x-1", 1, forged) is not None
    merged = merge(hub, "y-1", 1, theirs)
    assert hub.merged_as(hub.target(), "y-1", 1, theirs) == merged


def test_a_merge_of_another_commit_of_the_same_attempt_is_not_this_one(hub: Hub) -> None:
    first = submit(hub, "x-1")
    merge(hub, "x-1", 1, first)
    tree = hub.find("agent-1")
    assert tree is not None
    later = commit(tree.path, "later", "x")
    assert hub.merged_as(hub.target(), "x-1", 1, later) is None


def test_merges_that_wait_for_publishing_are_listed_in_order(hub: Hub) -> None:
    for uid in ("x-1", "y-1"):
        merge(hub, uid, 1, submit(hub, uid, name=uid))
    waiting = hub.unpublished()
    assert [(m.uid, m.n, m.subject) for m in waiting] == [("x-1", 1, "x-1: work"), ("y-1", 1, "y-1: work")]
    assert waiting[1].sha == hub.target()


def test_r34_the_commit_is_synced_before_the_pin_and_the_merge_before_the_target(at: Desk) -> None:
    at.durable = True
    hub = at.open()
    tree = hub.prepare("agent-1", "x-1", 1, hub.target())
    sha = commit(tree.path, "new", "x")
    at.probe.calls.clear()
    hub.pin("x-1", 1, sha)
    assert [words(c) for c in at.probe.calls] == ["pack-objects", "index-pack", "sync", "update-ref", "sync"]
    at.probe.calls.clear()
    held = taken(hub, "a")
    assert [words(c) for c in at.probe.calls] == ["hash-object", "sync", "update-ref", "sync"]
    made, old = built(hub, "x-1", sha), hub.target()
    at.probe.calls.clear()
    hub.sync()
    hub.swap_target(held, made.sha, old)
    assert [words(c) for c in at.probe.calls] == ["sync", "update-ref", "sync"]


def words(call: tuple[str, ...]) -> str:
    return call[1] if call[0] == "git" else call[0]
