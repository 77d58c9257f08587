"""The person's repository is followed, pushed to with a lease, and never overwritten or made dirty."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from harness.hub import (
    Conflict,
    Hub,
    Published,
    Refusal,
    Refused,
    Swap,
    Upstream,
    UpstreamFenced,
    UpstreamMerged,
    UpstreamUnchanged,
    UpToDate,
)
from harness.layout import Layout
from harness.logs import Event
from tests.hubs import Desk, commit, desk, git, merge, person, submit


@pytest.fixture
def up(tmp_path: Path) -> Path:
    return person(tmp_path / "up")


@pytest.fixture
def at(layout: Layout, up: Path) -> Desk:
    return desk(layout, up)


def merged(hub: Hub, uid: str = "x-1", name: str = "new.txt") -> str:
    return merge(hub, uid, 1, submit(hub, uid, name=name))


def tip(up: Path, name: str = "main") -> str:
    return git(up, "rev-parse", name)


# ---- following -------------------------------------------------------------------------------------------------------


def test_a_target_that_did_not_move_costs_no_process(at: Desk, hub: Hub) -> None:
    at.probe.calls.clear()
    assert hub.refresh().state is Upstream.SAME
    assert at.probe.calls == []


def test_a_packed_target_is_looked_at_by_git(at: Desk, hub: Hub, up: Path) -> None:
    git(up, "pack-refs", "--all")
    at.probe.calls.clear()
    assert hub.refresh().state is Upstream.SAME
    assert [call[1] for call in at.probe.calls] == ["cat-file", "fetch"]


def test_a_target_that_moved_is_followed(at: Desk, hub: Hub, up: Path) -> None:
    new = commit(up, "c", "c", branch="main")
    seen = hub.refresh()
    assert (seen.state, seen.target, seen.upstream) == (Upstream.FORWARDED, new, new)
    assert hub.target() == new
    assert len(at.emitted(Event.TARGET_FETCHED)) == 1


def test_tags_for_which_there_is_no_room_do_not_keep_anybody_from_following(
    at: Desk, hub: Hub, up: Path
) -> None:
    git(up, "tag", "v1", "main")
    commit(up, "c", "c", branch="main")
    assert hub.refresh().state is Upstream.FORWARDED
    git(up, "tag", "-d", "v1")
    git(up, "tag", "v1/rc1")
    git(up, "tag", "v2")
    for name in ("d", "e"):
        new = commit(up, name, name, branch="main")
        assert hub.refresh().state is Upstream.FORWARDED
        assert hub.target() == new
    assert git(hub.path, "rev-parse", "v2") == git(up, "rev-parse", "v2")


def test_what_was_seen_of_theirs_and_is_torn_is_fetched_again(hub: Hub, up: Path) -> None:
    new = commit(up, "c", "c", branch="main")
    (hub.path / hub.repo.upstream).parent.mkdir(parents=True, exist_ok=True)
    (hub.path / hub.repo.upstream).write_text("")
    assert hub.refresh().upstream == new


def test_without_room_for_a_repository_of_its_own_it_is_tried_again(
    hub: Hub, up: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merge(hub, "x-1", 1, submit(hub, "x-1", 1))
    commit(up, "c", "c", branch="main")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("shutil.copyfile", full)
    assert hub.refresh().state is Upstream.UNREACHABLE
    refused = hub.publish()
    assert isinstance(refused, Refused)
    assert refused.passing
    monkeypatch.undo()
    assert hub.refresh().reached


def test_following_stops_when_the_lane_or_the_target_moves_meanwhile(at: Desk, hub: Hub, up: Path) -> None:
    commit(up, "c", "c", branch="main")
    other = at.open()
    changes = iter(("what was fetched", "the target"))

    def intrude(args: tuple[str, ...]) -> None:
        if args[1] == "update-ref" and next(changes) == "the target":
            at.probe.before = lambda _: None
            other.swap_lane(other.lane(), "b", None)

    at.probe.before = intrude
    assert hub.refresh().state is Upstream.MOVED
    assert hub.refresh().state is Upstream.FORWARDED


def test_a_network_that_fails_is_a_value(hub: Hub, up: Path) -> None:
    up.rename(up.with_name("gone"))
    seen = hub.refresh()
    assert seen.state is Upstream.UNREACHABLE
    assert not seen.reached
    assert seen.reason


def test_a_target_that_was_deleted_is_missing(hub: Hub, up: Path) -> None:
    git(up, "branch", "-D", "main")
    seen = hub.refresh()
    assert seen.state is Upstream.MISSING
    assert hub.target() == seen.target


def test_unpublished_merges_put_us_ahead(hub: Hub) -> None:
    merged(hub)
    assert hub.refresh().state is Upstream.AHEAD


def test_both_moved_is_merged_in_the_lane_with_our_line_first(hub: Hub, up: Path) -> None:
    ours = merged(hub)
    theirs = commit(up, "c", "c", branch="main")
    assert hub.refresh().diverged
    held = hub.swap_lane(hub.lane(), "e", None)
    assert held is not None
    done = hub.merge_upstream(held)
    assert isinstance(done, UpstreamMerged)
    assert git(up, "-C", str(hub.path), "log", "-1", "--format=%P", done.sha) == f"{ours} {theirs}"
    assert hub.refresh().state is Upstream.AHEAD
    assert isinstance(hub.merge_upstream(held), UpstreamUnchanged)
    assert [m.uid for m in hub.unpublished()] == ["x-1"]


def test_a_merge_of_upstream_without_the_lane_moves_nothing(at: Desk, hub: Hub, up: Path) -> None:
    merged(hub)
    commit(up, "c", "c", branch="main")
    hub.refresh()
    held, old = hub.lane(), hub.target()
    other = at.open()
    assert other.swap_lane(other.lane(), "b", None) is not None
    assert hub.merge_upstream(held) == UpstreamFenced(by=Swap.LANE)
    assert hub.target() == old


def test_lines_that_contradict_each_other_need_a_person(hub: Hub, up: Path) -> None:
    merged(hub, name="a.txt")
    commit(up, "a.txt", "theirs\n", "Their way", branch="main")
    hub.refresh()
    found = hub.merge_upstream(hub.lane())
    assert isinstance(found, Conflict)
    assert found.submitted == ("Their way",)


def test_a_person_who_merges_our_line_into_theirs_does_not_hide_our_merges(hub: Hub, up: Path) -> None:
    sha = submit(hub, "x-1")
    ours = merge(hub, "x-1", 1, sha)
    commit(up, "c", "c", branch="main")
    git(up, "fetch", "-q", str(hub.path), "main:ours")
    git(up, "merge", "-q", "--no-ff", "-m", "take theirs", "ours")
    theirs = tip(up)
    assert hub.refresh().diverged
    done = hub.merge_upstream(hub.lane())
    assert isinstance(done, UpstreamMerged)
    assert hub.merged_as(hub.target(), "x-1", 1, sha) == ours
    git(up, "switch", "-q", "work")
    assert isinstance(hub.publish(), Published)
    assert git(up, "merge-base", "--is-ancestor", theirs, "main") == ""


# ---- publishing ------------------------------------------------------------------------------------------------------


def test_merges_are_pushed_to_a_branch_that_is_not_checked_out(hub: Hub, up: Path) -> None:
    assert hub.publish() == UpToDate(sha=hub.target())
    sha = merged(hub)
    assert hub.publish() == Published(sha=sha)
    assert tip(up) == sha
    assert hub.unpublished() == []
    assert hub.publish() == UpToDate(sha=sha)
    assert git(up, "for-each-ref", "--format=%(refname)") == "refs/heads/main\nrefs/heads/work"


def test_merges_are_pushed_to_a_bare_repository(layout: Layout, tmp_path: Path) -> None:
    up = person(tmp_path / "bare", bare=True)
    hub = desk(layout, up).open()
    sha = merged(hub)
    assert hub.publish() == Published(sha=sha)
    assert tip(up) == sha


def assert_untouched(up: Path, before: str, name: str = "main") -> None:
    assert tip(up, name) == before
    assert git(up, "status", "--porcelain") == ""


def test_a_checked_out_target_is_refused_and_stays_clean(hub: Hub, up: Path) -> None:
    git(up, "switch", "-q", "main")
    before = tip(up)
    merged(hub)
    refused = hub.publish()
    assert isinstance(refused, Refused)
    assert refused.kind is Refusal.CHECKED_OUT
    assert not refused.passing
    assert "checkout: update" in refused.remedy
    assert_untouched(up, before)
    git(up, "switch", "-q", "work")
    assert isinstance(hub.publish(), Published)


def test_with_update_a_clean_checkout_is_brought_along(at: Desk, up: Path) -> None:
    at.updating()
    hub = at.open()
    git(up, "switch", "-q", "main")
    sha = merged(hub)
    assert hub.publish() == Published(sha=sha)
    assert_untouched(up, sha)
    assert (up / "new.txt").read_text() == "work\n"


@pytest.mark.parametrize("staged", [False, True])
def test_with_update_a_dirty_checkout_is_refused_and_stays_as_it_is(at: Desk, up: Path, staged: bool) -> None:
    at.updating()
    hub = at.open()
    git(up, "switch", "-q", "main")
    before = tip(up)
    (up / "a.txt").write_text("my own work\n")
    if staged:
        git(up, "add", "a.txt")
    merged(hub)
    refused = hub.publish()
    assert isinstance(refused, Refused)
    assert refused.kind is Refusal.DIRTY
    assert tip(up) == before
    assert (up / "a.txt").read_text() == "my own work\n"
    assert git(up, "status", "--porcelain").split() == ["M", "a.txt"]
    git(up, "checkout", "-q", "HEAD", "--", "a.txt")
    assert isinstance(hub.publish(), Published)


def test_with_update_an_untracked_file_in_the_way_is_never_overwritten(at: Desk, up: Path) -> None:
    at.updating()
    hub = at.open()
    git(up, "switch", "-q", "main")
    (up / "new.txt").write_text("mine\n")
    merged(hub)
    refused = hub.publish()
    assert isinstance(refused, Refused)
    assert (up / "new.txt").read_text() == "mine\n"


def test_a_target_checked_out_in_a_linked_worktree_is_refused(hub: Hub, up: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    git(up, "worktree", "add", "-q", str(linked), "main")
    before = tip(up)
    merged(hub)
    refused = hub.publish()
    assert isinstance(refused, Refused)
    assert refused.kind is Refusal.CHECKED_OUT
    assert_untouched(linked, before)
    assert_untouched(up, before)


def test_with_update_a_clean_linked_worktree_is_brought_along(at: Desk, up: Path, tmp_path: Path) -> None:
    at.updating()
    hub = at.open()
    linked = tmp_path / "linked"
    git(up, "worktree", "add", "-q", str(linked), "main")
    sha = merged(hub)
    assert hub.publish() == Published(sha=sha)
    assert_untouched(linked, sha)


def test_r35_a_push_by_somebody_else_is_not_overwritten(at: Desk, hub: Hub, up: Path) -> None:
    ours = merged(hub)

    def intrude(args: tuple[str, ...]) -> None:
        if args[1] == "push":
            at.probe.before = lambda _: None
            commit(up, "c", "c", branch="main")
            git(up, "switch", "-q", "work")

    at.probe.before = intrude
    refused = hub.publish()
    assert isinstance(refused, Refused)
    assert refused.kind is Refusal.STALE
    assert refused.passing
    theirs = tip(up)
    assert hub.refresh().diverged
    diverged = hub.publish()
    assert isinstance(diverged, Refused)
    assert diverged.kind is Refusal.DIVERGED
    assert tip(up) == theirs
    assert isinstance(hub.merge_upstream(hub.lane()), UpstreamMerged)
    assert isinstance(hub.publish(), Published)
    for sha in (ours, theirs):
        git(up, "merge-base", "--is-ancestor", sha, "main")


def test_a_rewritten_upstream_is_not_overwritten_either(hub: Hub, up: Path) -> None:
    merged(hub)
    git(up, "switch", "-q", "main")
    git(up, "commit", "-q", "--amend", "-m", "rewritten")
    git(up, "switch", "-q", "work")
    theirs = tip(up)
    refused = hub.publish()
    assert isinstance(refused, Refused)
    assert refused.kind is Refusal.STALE
    assert tip(up) == theirs


def test_a_hook_that_declines_is_shown_and_may_agree_later(hub: Hub, up: Path) -> None:
    hook = up / ".git/hooks/pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho the gate is closed >&2\nexit 1\n")
    hook.chmod(0o755)
    sha = merged(hub)
    refused = hub.publish()
    assert isinstance(refused, Refused)
    assert refused.kind is Refusal.HOOK
    assert "the gate is closed" in refused.reason
    assert [m.uid for m in hub.unpublished()] == ["x-1"]
    hook.unlink()
    assert hub.publish() == Published(sha=sha)


def test_their_hooks_run_with_their_environment_and_without_our_secrets(
    at: Desk, hub: Hub, up: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "secret")
    monkeypatch.setenv("HOME", str(tmp_path))
    hook = up / ".git/hooks/post-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\nenv > '{tmp_path}/env'\n")
    hook.chmod(0o755)
    merged(hub)
    assert isinstance(hub.publish(), Published)
    seen = (tmp_path / "env").read_text()
    assert f"HOME={tmp_path}\n" in seen
    assert "secret" not in seen
    assert "GIT_CONFIG_COUNT" not in seen


def test_a_lock_in_their_repository_is_theirs_to_remove(hub: Hub, up: Path) -> None:
    merged(hub)
    lock = up / ".git/refs/heads/main.lock"
    lock.write_text("")
    refused = hub.publish()
    assert isinstance(refused, Refused)
    assert refused.kind is Refusal.LOCKED
    assert lock.exists()
    lock.unlink()
    assert isinstance(hub.publish(), Published)


def test_an_unreachable_repository_is_refused_and_tried_again(hub: Hub, up: Path) -> None:
    merged(hub)
    up.rename(up.with_name("gone"))
    refused = hub.publish()
    assert isinstance(refused, Refused)
    assert (refused.kind, refused.passing) == (Refusal.UNREACHABLE, True)
    up.with_name("gone").rename(up)
    assert isinstance(hub.publish(), Published)


def test_a_publisher_killed_after_the_push_repeats_it_without_harm(at: Desk, hub: Hub, up: Path) -> None:
    sha = merged(hub)
    old = git(hub.path, "rev-parse", "refs/remotes/upstream/main")
    assert isinstance(hub.publish(), Published)
    git(hub.path, "update-ref", "refs/remotes/upstream/main", old)
    assert hub.refresh().state is Upstream.SAME
    assert hub.publish() == UpToDate(sha=sha)
    assert tip(up) == sha


def test_the_persons_own_git_configuration_applies_to_push(
    layout: Layout, up: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`url.<base>.insteadOf` stands for credentials, proxies and ssh commands."""
    config = tmp_path / "gitconfig"
    config.write_text(f'[url "file://{up}"]\n\tinsteadOf = team://app\n')
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    at = desk(layout, up)
    at.project = type(at.project)(name="app", path="team://app")
    hub = at.open()
    sha = merged(hub)
    assert hub.publish() == Published(sha=sha)
    assert tip(up) == sha
    assert os.environ["GIT_CONFIG_GLOBAL"] == str(config)


@pytest.mark.parametrize(("durable", "asked"), [(True, "committed,loose-object"), (False, "")])
def test_a_pushed_commit_is_durable_in_the_persons_repository_without_touching_its_configuration(
    at: Desk, up: Path, durable: bool, asked: str
) -> None:
    """git unpacks the few objects of a push without fsync: after a power loss main named empty files."""
    at.durable = durable
    hub = at.open()
    hook = up / ".git" / "hooks" / "post-receive"
    hook.write_text("#!/bin/sh\ngit config core.fsync > said\ntrue\n")
    hook.chmod(0o755)
    before = (up / ".git" / "config").read_text()
    merged(hub)
    assert isinstance(hub.publish(), Published)
    assert (up / ".git" / "said").read_text().strip() == asked
    assert (up / ".git" / "config").read_text() == before


def test_what_is_pushed_is_durable_here_first(at: Desk) -> None:
    """A power loss took a merge from our target that others had: it could be cancelled, and came back with a fetch."""
    at.durable = True
    hub = at.open()
    merged(hub)
    at.probe.calls.clear()
    assert isinstance(hub.publish(), Published)
    names = ["sync" if args[0] == "sync" else args[1] for args in at.probe.calls]
    assert names[-3:] == ["sync", "push", "update-ref"]
