"""The merger of one project, on a real hub and a real repository of a person; its signals and its clock are the test's."""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from harness import cgroups, procs, reports, submitted
from harness.bell import Bell
from harness.clock import SystemClock, parse_rfc3339
from harness.config import Config, load
from harness.containment import Containment
from harness.errors import GitError
from harness.events import EventStream, read
from harness.hub import GitInterrupted, Hub
from harness.merger import FETCH_S, PUBLISH_MAX_S, SWEEP_S, Merger
from harness.model import Outcome, Verdict
from harness.pace import idle_beat_s
from harness.reports import ProjectReport
from harness.runner import Ended, EndReason, Runner
from harness.store import lane
from harness.store.cells import Standing
from tests.hubs import Desk, commit, desk, git, person, submit
from tests.stores import World
from tests.support import environment, python, running, until

pytestmark = pytest.mark.timeout(120)


@dataclass
class Told:
    """Signals that the test sends."""

    stops: int = 0
    reload: bool = False
    wake_fd: int = field(default_factory=lambda: os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC))
    drained: Callable[[], None] = lambda: None

    def drain(self) -> None:
        self.drained()


@dataclass
class Bench:
    """One merger with everything that it works on."""

    world: World
    at: Desk
    hub: Hub
    told: Told
    merger: Merger

    def item(self, name: str, **fields: Any) -> str:
        return self.world.add(id=name, **fields)

    def submit(self, name: str, file: str = "", text: str = "work\n", **fields: Any) -> str:
        """A whole attempt: claimed, worked, pinned, ended, announced. -> uid"""
        uid = self.item(name, **fields)
        return self.again(uid, 1, file or f"{name}.txt", text)

    def again(self, uid: str, n: int, file: str, text: str) -> str:
        owned = self.world.claim(uid)
        sha = submit(self.hub, uid, n, file, text)
        self.world.end(owned, Outcome.DONE, sha)
        submitted.add(self.world.layout, "app", uid)
        return uid

    def run(self) -> int:
        """Two rounds: in the first everything is done, the second finds nothing more to do."""
        rounds = itertools.count(1)

        def drained() -> None:
            if next(rounds) == 2:
                self.told.stops = 1

        before, self.told.stops = self.told.stops, self.told.stops
        self.told.drained = drained
        try:
            return self.merger.run()
        finally:
            self.told.stops = before

    def verdict(self, uid: str) -> Verdict:
        last = self.world.look(uid).last
        assert isinstance(last, Verdict)
        return last

    def said(self, kind: str) -> list[dict[str, Any]]:
        return [e for _, e in read(self.world.layout) if e["event"] == kind]

    @property
    def report(self) -> ProjectReport:
        found = reports.read(self.world.layout.project_status("app"), ProjectReport)
        assert found
        return found

    def theirs(self, file: str) -> str:
        return git(self.at.upstream, "show", f"main:{file}")


def configured(world: World, upstream: Path, **project: Any) -> Config:
    shell = {"adapter": "command", "argv": ["sh", "{prompt_file}"]}
    config = {
        "v": 1,
        "durability": "process",
        "projects": {"app": {"path": str(upstream), "agent": "shell", **project}},
        "agents": {"shell": shell},
        "sandbox": "none",
    }
    world.layout.config.write_text(json.dumps(config))
    return load(world.layout.config)


def bench(world: World, tmp_path: Path, **project: Any) -> Bench:
    upstream = person(tmp_path / "app")
    config = configured(world, upstream, **project)
    at = desk(world.layout, upstream)
    at.project = config.projects["app"]
    hub = at.ready()
    told = Told()
    merger = Merger(
        layout=world.layout,
        config=config,
        project=config.projects["app"],
        clock=world.clock,
        actor=world.actor("merger.app"),
        disk=world.new_disk(),
        events=EventStream(world.layout, world.clock, "merger.app"),
        signals=told,  # type: ignore[arg-type]
        runner=Runner(clock=SystemClock(), containment=Containment()),
        hub=hub,
    )
    return Bench(world, at, hub, told, merger)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle merger goes at once."""
    monkeypatch.setattr("harness.merger.LINGER_S", 0.0)


@pytest.fixture
def b(world: World, tmp_path: Path, at_once: None) -> Bench:
    return bench(world, tmp_path)


# ---- judging ---------------------------------------------------------------------------------------------------------


def test_a_submitted_result_is_merged_published_and_finished(b: Bench) -> None:
    uid = b.submit("a")
    assert b.run() == 0
    assert b.theirs("a.txt") == "work"
    stub = b.world.stub(uid)
    assert stub
    assert (stub.outcome, stub.sha) == ("merged", git(b.at.upstream, "rev-parse", "main"))
    (merged,) = b.said("item_merged")
    assert (merged["uid"], merged["id"], merged["n"], merged["sha"]) == (uid, "a", 1, stub.sha)
    assert len(b.said("item_finished")) == len(b.said("target_published")) == 1
    assert (b.report.state, b.report.publish, b.report.unpublished) == ("stopped", "ok", 0)
    assert b.report.judged == 1
    assert submitted.all_of(b.world.layout, "app") == []


def test_the_subject_of_a_merge_starts_with_the_items_id(b: Bench) -> None:
    b.submit("a", title="make it work", prompt="please")
    b.run()
    subject, _, body = git(b.at.upstream, "log", "-1", "--format=%s%n%b", "main").partition("\n")
    assert subject == "a: make it work"
    assert "please" in body


def test_nothing_submitted_is_nothing_to_do(b: Bench) -> None:
    tip = b.hub.target()
    assert b.run() == 0
    assert b.hub.target() == tip
    assert b.report.state == "stopped"


def test_results_are_judged_by_priority_then_in_the_order_of_submission(b: Bench) -> None:
    for name, priority in (("late", 8), ("first", 5), ("urgent", 0)):
        b.submit(name, priority=priority)
        b.world.clock.advance(1)
    b.run()
    assert [e["id"] for e in b.said("item_merged")] == ["urgent", "first", "late"]


def test_a_conflict_is_returned_with_what_was_merged_meanwhile_and_the_item_is_ready_again(b: Bench) -> None:
    a = b.submit("a", "same.txt", "one\n", priority=0)
    c = b.submit("c", "same.txt", "two\n")
    with Bell(b.world.layout.bell("workers")) as workers:
        workers.open()
        b.run()
        assert workers.drain() == 1
    assert b.world.stub(a)
    verdict = b.verdict(c)
    assert (verdict.returned, verdict.files) == ("conflict", ("same.txt",))
    assert "conflicts with the target in: same.txt" in verdict.evidence
    assert "merged meanwhile:" in verdict.evidence
    assert b.world.standing(c) is Standing.READY
    assert c in b.world.disk.hints.all()
    (event,) = b.said("item_returned")
    assert (event["uid"], event["returned"], event["reason"]) == (c, "conflict", "in same.txt")
    assert b.theirs("same.txt") == "one"


def test_a_result_that_is_returned_at_the_last_attempt_gets_no_hint(b: Bench) -> None:
    b.submit("a", "same.txt", "one\n", priority=0)
    c = b.submit("c", "same.txt", "two\n", max_attempts=1)
    b.run()
    assert b.world.standing(c) is Standing.PARKED
    assert b.said("item_returned")


def test_a_later_attempt_of_a_returned_item_is_merged(b: Bench) -> None:
    b.submit("a", "same.txt", "one\n", priority=0)
    c = b.submit("c", "same.txt", "two\n")
    b.run()
    b.again(c, 2, "same.txt", "both\n")
    b.merger = bench_again(b)
    b.run()
    assert b.theirs("same.txt") == "both"
    assert b.world.stub(c)


def bench_again(b: Bench) -> Merger:
    """The next merger process of the same project."""
    old = b.merger
    return Merger(
        layout=old.layout,
        config=old.config,
        project=old.project,
        clock=old.clock,
        actor=b.world.actor("merger.app"),
        disk=b.world.new_disk(),
        events=old.events,
        signals=b.told,  # type: ignore[arg-type]
        runner=old.runner,
        hub=b.at.open(),
    )


def test_a_lane_that_is_lost_is_taken_again(b: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    swap = b.hub.swap_target
    lost = iter([True])
    monkeypatch.setattr(Hub, "swap_target", lambda self, *a: "lane" if next(lost, False) else swap(*a))
    b.submit("a")
    b.run()
    assert b.theirs("a.txt") == "work"


def test_whoever_is_told_to_go_while_the_lane_is_lost_decides_nothing(
    b: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(self: Hub, *_: object) -> str:
        b.told.stops = 1
        return "lane"

    monkeypatch.setattr(Hub, "swap_target", lose)
    uid = b.submit("a")
    assert b.run() == 0
    assert b.world.standing(uid) is Standing.SUBMITTED
    assert submitted.all_of(b.world.layout, "app") == [uid]


def test_a_merge_that_an_earlier_merger_made_is_found_and_not_made_twice(b: Bench) -> None:
    """Killed between the move of the target and the verdict."""
    uid = b.submit("a")
    process = b.world.proc(lane.judge(b.merger.actor, "app", uid, 1))
    process.disk.hubs = b.merger.disk.hubs
    process.before("link", "1.verdict")
    process.kill()
    tip = b.hub.target()
    b.run()
    assert b.hub.target() == tip
    stub = b.world.stub(uid)
    assert stub
    assert stub.sha == tip


# ---- what is submitted -----------------------------------------------------------------------------------------------


def test_hints_that_are_wrong_are_removed_and_items_of_other_projects_left(b: Bench) -> None:
    ready, parked = b.item("ready"), b.item("parked")
    b.world.hold(parked)
    other = b.item("other")
    record = b.world.layout.queue / "open" / other / "item.json"
    record.write_text(record.read_text().replace('"project": "app"', '"project": "web"'))
    for uid in (ready, parked, other, "gone-0000000000"):
        submitted.add(b.world.layout, "app", uid)
    b.run()
    assert submitted.all_of(b.world.layout, "app") == [other]
    assert b.said("item_merged") == []


def test_a_result_whose_hint_was_lost_is_found_by_looking_at_everything(b: Bench) -> None:
    uid = b.submit("a")
    submitted.remove(b.world.layout, "app", uid)
    b.merger.swept = b.world.clock.monotonic()
    b.run()
    assert b.world.standing(uid) is Standing.SUBMITTED
    b.world.clock.advance(SWEEP_S + 1)
    b.run()
    assert b.world.stub(uid)


def test_an_item_that_is_over_is_finished(b: Bench) -> None:
    """Whoever decided it died before."""
    uid = b.submit("a")
    b.world.cancel(uid)
    b.run()
    stub = b.world.stub(uid)
    assert stub
    assert stub.outcome == "cancelled"
    assert [e["outcome"] for e in b.said("item_finished")] == ["cancelled"]


# ---- gates on the merged tree ----------------------------------------------------------------------------------------

GATED: dict[str, Any] = {
    "gates": [
        {"name": "two", "run": "echo looked; [ $(ls *.txt | wc -l) -lt 2 ]"},
        {"name": "other", "run": "false"},
    ],
    "merge": {"gates": ["two"]},
}


def test_a_gate_that_is_red_on_the_merged_tree_returns_the_result_and_the_target_stays(
    world: World, tmp_path: Path, at_once: None
) -> None:
    b = bench(world, tmp_path, **GATED)
    tip = b.hub.target()
    c, d = b.submit("c", "c.txt", priority=0), b.submit("d", "src/d.txt")
    b.run()
    assert b.world.stub(d)
    verdict = b.verdict(c)
    assert (verdict.returned, verdict.gate, verdict.onto) == ("gate", "two", tip)
    assert "looked" in verdict.evidence
    assert b.world.standing(c) is Standing.READY
    assert "c.txt" not in git(b.at.upstream, "ls-tree", "--name-only", "main").split()


@pytest.mark.parametrize(
    ("project", "fields", "gate"),
    [({}, {"files": ["evil.txt"]}, "scope"), ({"protected": ["important.txt"]}, {}, "protected")],
)
def test_what_an_item_may_not_change_it_does_not_undo_by_a_merge_of_its_own_either(
    world: World, tmp_path: Path, at_once: None, project: dict[str, Any], fields: dict[str, Any], gate: str
) -> None:
    """`git merge -s ours` of the target: its own diff, which its gates judged, does not show it."""
    b = bench(world, tmp_path, **project)
    evil = b.item("evil", **fields)
    owned = b.world.claim(evil)
    tree = b.hub.prepare("agent-2", evil, 1, b.hub.target())
    b.submit("victim", "important.txt", protected=["important.txt"])
    b.run()
    commit(tree.path, "evil.txt", "x\n")
    git(tree.path, "merge", "-q", "-s", "ours", "-m", "x", b.hub.target())
    sha = git(tree.path, "rev-parse", "HEAD")
    b.hub.pin(evil, 1, sha)
    b.world.end(owned, Outcome.DONE, sha)
    submitted.add(world.layout, "app", evil)
    b.run()
    verdict = b.verdict(evil)
    assert (verdict.returned, verdict.gate) == ("gate", gate)
    assert "important.txt" in verdict.evidence
    assert b.theirs("important.txt") == "work"


def test_a_file_that_was_moved_meanwhile_is_still_within_the_items_files(b: Bench) -> None:
    uid = b.submit("mine", "src/b.txt", "two\nmore\n", files=["src/**"])
    up = b.at.upstream
    git(up, "switch", "-q", "main")
    (up / "lib").mkdir()
    git(up, "mv", "src/b.txt", "lib/b.txt")
    git(up, "commit", "-q", "-m", "moved")
    git(up, "switch", "-q", "work")
    b.run()
    assert b.theirs("lib/b.txt") == "two\nmore"
    stub = b.world.stub(uid)
    assert stub
    assert stub.sha


def test_a_merger_that_is_told_to_go_during_a_gate_decides_nothing(
    world: World, tmp_path: Path, at_once: None
) -> None:
    b = bench(world, tmp_path, gates=[{"name": "slow", "run": "sleep 100"}], merge={"gates": ["slow"]})
    looks = iter(range(3))

    def beat() -> str | None:
        if next(looks, None) is not None or not git_gate(b):
            return None
        b.told.stops = 1
        return "the harness is stopping"

    b.merger.runner = Runner(clock=SystemClock(), containment=Containment(), beat=beat, beat_s=0.02)
    uid = b.submit("a")
    assert b.run() == 0
    assert b.world.standing(uid) is Standing.SUBMITTED
    assert b.report.state == "stopped"


def git_gate(b: Bench) -> bool:
    return b.report.state == "gates"


# ---- errors ----------------------------------------------------------------------------------------------------------


def stopped_git() -> GitInterrupted:
    ended = Ended(reason=EndReason.STOPPED, stop_reason="the harness is stopping", duration_s=0.1)
    return GitInterrupted(("merge-tree",), ended, where=Path())


def test_one_result_that_git_cannot_merge_does_not_stop_the_others(
    b: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = b.hub.build_merge
    bad = b.submit("bad", priority=0)
    good = b.submit("good")

    def broken(self: Hub, tip: str, uid: str, *a: Any, **more: Any) -> Any:
        if uid == bad:
            raise GitError("git merge-tree: exit 128", where="hub")
        return build(tip, uid, *a, **more)

    monkeypatch.setattr(Hub, "build_merge", broken)
    with pytest.raises(GitError):
        b.run()
    assert b.world.stub(good)
    assert b.theirs("good.txt") == "work"
    assert b.world.standing(bad) is Standing.SUBMITTED
    (event,) = b.said("process_failed")
    assert (event["what"], event["uid"]) == ("merge", bad)


def test_git_that_was_stopped_is_no_failure_of_the_result(b: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(self: Hub, *a: Any, **more: Any) -> Any:
        raise stopped_git()

    monkeypatch.setattr(Hub, "build_merge", stop)
    b.submit("a")
    with pytest.raises(GitInterrupted):
        b.run()
    assert b.said("process_failed") == []


# ---- following and publishing ----------------------------------------------------------------------------------------


def test_a_persons_commit_is_followed_before_anything_is_merged(b: Bench) -> None:
    b.submit("a")
    mine = commit(b.at.upstream, "mine.txt", "mine\n", branch="main")
    git(b.at.upstream, "switch", "-q", "work")
    b.run()
    assert git(b.at.upstream, "rev-parse", "main^1") == mine


def test_a_persons_commit_beside_unpublished_merges_is_merged_too(b: Bench) -> None:
    git(b.at.upstream, "switch", "-q", "main")
    b.submit("a")
    b.run()
    assert b.report.unpublished == 1
    commit(b.at.upstream, "mine.txt", "mine\n")
    git(b.at.upstream, "switch", "-q", "work")
    b.world.clock.advance(PUBLISH_MAX_S)
    b.run()
    assert (b.theirs("mine.txt"), b.theirs("a.txt")) == ("mine", "work")
    assert (b.report.publish, b.report.unpublished, b.report.since) == ("ok", 0, "")


def test_the_persons_repository_is_not_looked_at_for_every_result(
    b: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []
    refresh = b.hub.refresh

    def look(self: Hub) -> object:
        looks.append(1)
        return refresh()

    monkeypatch.setattr(Hub, "refresh", look)
    b.merger._fetch()
    b.merger._fetch()
    assert len(looks) == 1
    b.world.clock.advance(FETCH_S)
    b.merger._fetch()
    assert len(looks) == 2


def test_a_checked_out_target_is_a_refusal_with_a_remedy_said_once_and_tried_again_later(b: Bench) -> None:
    git(b.at.upstream, "switch", "-q", "main")
    b.submit("a")
    b.run()
    report = b.report
    assert (report.publish, report.unpublished) == ("checked_out", 1)
    assert "switch to another branch" in report.remedy
    assert report.since
    b.run()
    assert b.report.next_try == "" or b.report.since == report.since  # not yet: nothing was tried
    delays = []
    for _ in range(10):
        b.world.clock.advance(b.merger.publish_at - b.world.clock.monotonic())
        assert b.merger._publish() is False
        delays.append(parse_rfc3339(b.report.next_try) - b.world.clock.wall())
    assert delays == sorted(delays)
    assert delays[-1] == pytest.approx(PUBLISH_MAX_S, abs=0.01)
    assert b.report.since == report.since
    assert len(b.said("publish_refused")) == 1
    assert git(b.at.upstream, "status", "--porcelain") == ""


def test_two_lines_that_contradict_each_other_need_a_person_and_are_said_to(b: Bench) -> None:
    git(b.at.upstream, "switch", "-q", "main")
    b.submit("a", "same.txt", "ours\n")
    b.run()
    commit(b.at.upstream, "same.txt", "theirs\n")
    git(b.at.upstream, "switch", "-q", "work")
    b.world.clock.advance(PUBLISH_MAX_S)
    b.run()
    assert "contradict each other in: same.txt" in b.report.reason
    assert f"git pull --no-rebase {b.hub.path} main" in b.report.remedy
    assert b.theirs("same.txt") == "theirs"


def test_without_publishing_merges_stay_in_the_hub_and_nothing_is_owed(
    world: World, tmp_path: Path, at_once: None
) -> None:
    b = bench(world, tmp_path, merge={"publish": "none"})
    before = git(b.at.upstream, "rev-parse", "main")
    uid = b.submit("a")
    b.run()
    assert b.world.stub(uid)
    assert git(b.at.upstream, "rev-parse", "main") == before
    assert (b.report.publish, b.report.unpublished) == ("off", 0)


def test_what_somebody_else_published_meanwhile_is_published(b: Bench) -> None:
    git(b.at.upstream, "switch", "-q", "main")
    b.submit("a")
    b.run()
    git(b.at.upstream, "switch", "-q", "work")
    git(b.at.upstream, "fetch", "-q", str(b.hub.path), "main")
    git(b.at.upstream, "branch", "-f", "main", "FETCH_HEAD")
    b.world.clock.advance(PUBLISH_MAX_S)
    b.run()
    assert (b.report.publish, b.report.unpublished) == ("ok", 0)
    assert b.said("target_published") == []


# ---- staying and going -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["stops", "reload"])
def test_a_merger_that_is_told_to_go_takes_up_nothing_more(b: Bench, how: str) -> None:
    uid = b.submit("a")
    setattr(b.told, how, 1)
    assert b.run() == 0
    assert b.world.standing(uid) is Standing.SUBMITTED
    assert b.report.state == "stopped"


def test_an_idle_merger_stays_for_the_next_result_and_is_woken_by_its_bell(
    world: World, tmp_path: Path
) -> None:
    b = bench(world, tmp_path)
    rounds = []

    def drained() -> None:
        rounds.append(b.merger.report.state)
        if len(rounds) == 2:
            b.submit("a")  # while it is awake: found at once
            Bell(b.world.layout.bell("merger.app")).ring()
        if len(rounds) == 4:
            b.told.stops = 1
        os.eventfd_write(b.told.wake_fd, 1)  # as a signal would: nobody waits in a test

    b.told.drained = drained
    assert b.merger.run() == 0
    assert b.theirs("a.txt") == "work"
    assert "idle" in rounds


# ---- the process -----------------------------------------------------------------------------------------------------


def argv(world: World, name: str = "merger.app") -> list[str]:
    return [
        sys.executable,
        "-P",
        "-m",
        "harness",
        "merger",
        "--root",
        str(world.layout.root),
        "--agent",
        name,
    ]


def test_the_process_waits_goes_when_told_and_is_alone(world: World, tmp_path: Path) -> None:
    configured(world, person(tmp_path / "app"))

    def report() -> ProjectReport | None:
        return reports.read(world.layout.project_status("app"), ProjectReport)

    with running(argv(world), env=environment()) as first:
        until(lambda: (r := report()) and r.state == "idle", 60)
        assert world.layout.merger_beat("app").exists()
        with running(argv(world), env=environment()) as second:
            assert second.wait(60) == 0
        assert first.poll() is None
        first.send_signal(signal.SIGTERM)
        assert first.wait(30) == 0
    said = report()
    assert said
    assert said.state == "stopped"


def test_gates_of_a_merger_that_was_killed_are_ended_before_anything_else(b: Bench) -> None:
    """They would go on in the scratch worktree beside the next merge, and leave an empty cgroup for ever."""
    mark = f"x-{os.getpid()}.1.merge"
    base = Containment.probe().cgroup
    group = cgroups.Group.create(base, mark) if base else None
    record = ProjectReport(project="app", pid=1, state="gates", item=f"x-{os.getpid()}", attempt=1)
    reports.write(b.world.layout.project_status("app"), record)
    with python("import time; time.sleep(1000)", HARNESS_ATTEMPT=mark) as process:
        until(lambda: procs.environ_marked(mark))
        b.run()
        assert process.wait(10) == -signal.SIGKILL
    assert [e["number"] for e in b.said("survivors_killed")] == [1]
    assert group is None or not group.exists()
    assert b.report.item is None
    b.run()
    assert len(b.said("survivors_killed")) == 1


def test_a_merger_beats_in_every_turn_and_turns_soon_enough(
    b: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits, beats = [], []
    monkeypatch.setattr(Bell, "wait", lambda self, timeout_s, fds: waits.append(timeout_s))
    monkeypatch.setattr(b.merger.runner, "beat", lambda: beats.append(1))
    b.run()
    assert beats
    assert waits
    assert max(waits) <= idle_beat_s(b.merger.config.health.hang_s) + 0.1


def test_the_process_of_a_project_that_is_not_configured_says_so(world: World, tmp_path: Path) -> None:
    configured(world, person(tmp_path / "app"))
    with running(argv(world, "merger.web"), env=environment()) as process:
        assert process.wait(60) == 78


def test_the_process_says_why_it_failed(b: Bench) -> None:
    uid = b.submit("a")
    blob = git(b.hub.path, "hash-object", "-w", "--stdin", stdin=b"no lane")
    git(b.hub.path, "update-ref", "refs/harness/lane", blob)
    with running(argv(b.world), env=environment()) as process:
        assert process.wait(60) == 1
    told = {e["what"]: e["reason"] for e in b.said("process_failed")}
    assert told.keys() == {"merge", "merger.app"}
    assert "the merge lane cannot be read" in told["merger.app"]
    assert b.world.standing(uid) is Standing.SUBMITTED


def test_an_item_whose_records_are_damaged_is_left_alone_and_the_others_are_merged(b: Bench) -> None:
    bad = b.submit("bad")
    (b.world.layout.queue / "open" / bad / "1.end").write_text("torn")
    good = b.submit("good")
    assert b.run() == 0
    assert b.world.stub(good)
    assert b.world.standing(bad) is Standing.UNREADABLE
