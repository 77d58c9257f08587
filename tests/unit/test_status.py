"""The state of a root, for people and programs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness import procs, reports
from harness.clock import rfc3339
from harness.layout import Layout
from harness.model import Outcome
from harness.reports import AgentReport, CoordinatorReport, ProjectReport
from harness.status import FRESH_S, Status, collect
from tests.cli import ctl
from tests.stores import World
from tests.support import FakeClock, environment, make_root

KEPT = {
    "schema_version": None,
    "timestamp": None,
    "coordinator": {"pid", "started_at", "uptime_seconds", "state"},
    "agents": None,
    "queue": {
        "waiting",
        "ready",
        "claimed",
        "merging",
        "publishing",
        "done",
        "parked",
        "rejected",
        "total",
    },
    "convoys": None,
    "interrupts": None,
    "limits": None,
    "budgets": None,
    "metrics": {
        "throughput_per_hour",
        "success_rate",
        "average_seconds",
        "attempts",
        "expired",
        "limit_rate",
        "spend_usd_today",
        "interventions_today",
    },
}
AGENT_KEYS = {
    "id",
    "state",
    "pid",
    "item",
    "attempt",
    "project",
    "started_at",
    "last_beat",
    "last_event",
    "health",
    "rss_mb",
}


def coordinates(layout: Layout, clock: FakeClock, **more: Any) -> None:
    """This process says that it is the coordinator."""
    me = procs.self_id()
    said = {"started_at": rfc3339(clock.wall() - 100), "ticked_at": rfc3339(clock.wall())} | more
    report = CoordinatorReport(pid=me.pid, start_ticks=me.start_ticks, boot_id=me.boot_id, **said)
    reports.write(reports.coordinator_path(layout), report)


def works(layout: Layout, name: str, pid: int | None = None, **more: Any) -> None:
    me = procs.self_id()
    report = AgentReport(
        agent=name, pid=pid or me.pid, start_ticks=me.start_ticks, boot_id=me.boot_id, **more
    )
    reports.write(reports.agent_path(layout, name), report)


def words(seen: Status) -> str:
    return "\n".join(f"{need.what} -> {need.command}" for need in seen.needs)


def test_the_json_has_exactly_the_keys_that_are_kept_for_ever(layout: Layout, clock: FakeClock) -> None:
    coordinates(layout, clock)
    works(layout, "agent-1", item="x-1", attempt=2)
    data = collect(layout, clock).to_json()
    assert data.keys() == KEPT.keys()
    for key, inner in KEPT.items():
        if inner is not None:
            assert data[key].keys() == inner
    assert data["agents"][0].keys() == AGENT_KEYS
    assert (data["convoys"], data["interrupts"], data["limits"], data["budgets"]) == ([], [], [], [])


def test_a_living_coordinator_is_believed_and_the_store_not_read(layout: Layout, clock: FakeClock) -> None:
    coordinates(layout, clock, counts={"ready": 7, "claimed": 2, "parked": 1})
    seen = collect(layout, clock)
    assert seen.coordinator.state == "running"
    assert seen.coordinator.uptime_seconds == 100
    assert (seen.queue.ready, seen.queue.claimed, seen.queue.parked) == (7, 2, 1)
    assert seen.queue.total == 10


def test_a_report_of_a_dead_coordinator_is_not_believed(layout: Layout, clock: FakeClock) -> None:
    me = procs.self_id()
    dead = CoordinatorReport(
        pid=me.pid,
        start_ticks=me.start_ticks + 1,
        boot_id=me.boot_id,
        ticked_at=rfc3339(clock.wall()),
        counts={"ready": 7},
    )
    reports.write(reports.coordinator_path(layout), dead)
    seen = collect(layout, clock)
    assert (seen.coordinator.state, seen.coordinator.pid) == ("stopped", None)
    assert seen.queue.ready == 0


def test_a_coordinator_that_has_not_ticked_is_silent_and_not_believed(
    layout: Layout, clock: FakeClock
) -> None:
    coordinates(layout, clock, counts={"ready": 7}, ticked_at=rfc3339(clock.wall() - FRESH_S - 1))
    seen = collect(layout, clock)
    assert seen.coordinator.state == "silent"
    assert seen.queue.ready == 0
    assert "harnessctl doctor" in seen.needs[0].command


def test_without_a_coordinator_the_store_itself_is_counted(world: World) -> None:
    world.add(id="a")
    running = world.add(id="b")
    world.claim(running)
    world.submit(world.add(id="c"))
    world.add(id="d", depends_on=["a"])
    world.hold(world.add(id="e"))
    over = world.add(id="f", commit="none")
    world.attempt(over, Outcome.DONE)
    world.finish(over)
    world.drop("g.json", {"nothing": 1})
    world.admit_all()
    world.drop("h.json")
    seen = collect(world.layout, world.clock)
    queue = seen.queue
    assert (queue.waiting, queue.ready, queue.claimed, queue.merging) == (1, 1, 1, 1)
    assert (queue.parked, queue.done, queue.rejected, queue.total) == (1, 1, 1, 7)
    assert seen.drops == 1
    assert "no coordinator runs" in seen.needs[0].what


def test_a_parked_item_is_named_with_its_reason_and_the_command_that_helps(world: World) -> None:
    uid = world.add(id="fix-login")
    world.hold(uid)
    said = words(collect(world.layout, world.clock))
    assert "fix-login is parked: held by me: wait" in said
    assert f"harnessctl retry {uid}" in said


def test_problems_of_the_coordinator_come_first(layout: Layout, clock: FakeClock) -> None:
    parked = ({"uid": "x-1", "id": "x", "reason": "3 of 3 attempts spent"},)
    coordinates(layout, clock, counts={"parked": 5}, parked=parked, problems=("agent-1 cannot start",))
    needs = [need.what for need in collect(layout, clock).needs]
    assert needs[0] == "agent-1 cannot start"
    assert needs[1].startswith("x is parked")
    assert needs[2] == "4 more are parked"


def test_ignored_drops_are_named_with_the_reason(layout: Layout, clock: FakeClock) -> None:
    coordinates(layout, clock, ignored={"link.json": "is a symbolic link"})
    assert "queue/link.json is ignored: it is a symbolic link" in words(collect(layout, clock))


def test_merges_that_are_not_published_count_as_publishing(layout: Layout, clock: FakeClock) -> None:
    coordinates(layout, clock, counts={"merged": 5})
    reports.write(
        layout.project_status("app"), ProjectReport(project="app", unpublished=2, publish="refused")
    )
    queue = collect(layout, clock).queue
    assert (queue.publishing, queue.done) == (2, 3)


def test_a_dead_worker_with_an_item_is_shown_as_dead(layout: Layout, clock: FakeClock) -> None:
    works(layout, "agent-1", pid=2**22 + 1, state="running", item="x-1", attempt=1)
    works(layout, "agent-2", pid=2**22 + 1, state="idle")
    (agent,) = collect(layout, clock).agents
    assert (agent.id, agent.state, agent.health, agent.item) == ("agent-1", "dead", "dead", "x-1")


def test_slots_are_in_the_order_people_count(layout: Layout, clock: FakeClock) -> None:
    coordinates(layout, clock)
    for k in (10, 2, 1):
        works(layout, f"agent-{k}")
    assert [agent.id for agent in collect(layout, clock).agents] == ["agent-1", "agent-2", "agent-10"]


def test_a_root_without_any_folder_is_no_error(tmp_path: Path, clock: FakeClock) -> None:
    layout = make_root(tmp_path / "r")
    for folder in sorted(layout.state.rglob("*"), reverse=True):
        folder.rmdir()
    assert collect(layout, clock).queue.total == 0


def test_the_page_puts_what_needs_a_person_before_what_runs(world: World) -> None:
    world.hold(world.add(id="fix-login"))
    works(world.layout, "agent-1", item="x-1", state="running", title="\x1b[31mred\x1b[0m")
    said = ctl(world.layout.root, "status").out
    assert said.index("Needs you") < said.index("Agents") < said.index("Queue")
    assert "\x1b" not in said
    assert "red" in said


def test_what_is_paused_is_told_once_with_and_without_a_coordinator(layout: Layout, clock: FakeClock) -> None:
    for name in ("pause", "pause.project.app", "pause.agent-1"):
        (layout.control / name).touch()
    everything = "paused, nothing new is claimed -> harnessctl resume"
    project = "project app is paused, nothing of it is claimed -> harnessctl resume --project app"
    assert words(collect(layout, clock)).splitlines()[-2:] == [everything, project]
    coordinates(layout, clock, problems=("paused, nothing new is claimed: harnessctl resume",))
    assert words(collect(layout, clock)).splitlines()[1:] == [project]


@pytest.mark.uncovered
def test_what_status_needs_while_a_coordinator_counts_imports_no_hashlib() -> None:
    code = "import sys, harness.cli.status, harness.cli.group, harness.status; sys.exit('hashlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-P", "-c", code], env=environment(), check=False).returncode == 0


def test_status_imports_nothing_heavy(layout: Layout) -> None:
    code = (
        "import sys; from harness.cli import main; code = main(sys.argv[1:]);"
        "heavy = {'pydantic', 'yaml', 'structlog', 'psutil', 'rich', 'watchdog', 'harness.config'} & sys.modules.keys();"
        "sys.exit(code or ','.join(sorted(heavy)) or 0)"
    )
    argv = [sys.executable, "-P", "-c", code, "--root", str(layout.root), "status"]
    done = subprocess.run(argv, env=environment(), capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
