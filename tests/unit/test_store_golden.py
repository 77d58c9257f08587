"""Every on-disk format that was ever released loads for ever, and what is written today is what docs/protocol.md says.

A change of a golden file is a change of the format: old stores must still be read. Add a new folder next to v1 instead.
"""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest

from harness.clock import parse_rfc3339
from harness.errors import StoreError
from harness.events import EventStream, read
from harness.hub.lane import LaneRecord
from harness.layout import STORE_FOLDERS, Layout
from harness.logs import Event
from harness.model import (
    Act,
    Claim,
    CommitPolicy,
    End,
    Grant,
    Identity,
    Item,
    Outcome,
    Record,
    Verdict,
    VerdictKind,
)
from harness.reports import AgentReport, CoordinatorReport, ProjectReport
from harness.store import setup
from harness.store.cells import Standing
from harness.store.decisions import Decided, Decision
from harness.store.names import Name
from tests.stores import World
from tests.support import ROOT, FakeClock

V1 = Path(__file__).parent.parent / "data" / "v1"
WHEN = "2027-01-15T08:00:00.000Z"
UID = "fix-login-k3j9x0a1b2"
OWNER = Identity(
    incarnation="agent-1.t0q3ox.00x7k2m9",
    name="agent-1",
    host="forge-1a2b3c4d",
    root="/srv/harness",
    pid=4711,
    start_ticks=123456,
    boot_id="0d7c9a52-7a4e-4f0e-9a2f-0c6f6f1f9d11",
)
RECORDS: dict[str, Record] = {
    "item.json": Item(
        uid=UID,
        id="fix-login",
        prompt="The login page says 500 when the password is empty.\nIt should say what is missing. \u2713",
        project="app",
        title="Say what is missing at login",
        agents=("claude", "shell"),
        priority=2,
        deps={"schema": "schema-p0o9i8u7y6", "docs": None},
        optional_deps=("docs",),
        convoy="login",
        files=("src/login/**",),
        protected=("pyproject.toml",),
        not_before="2027-01-01T00:00:00Z",
        max_attempts=3,
        timeout_s=3600.0,
        max_budget_usd=2.5,
        commit=CommitPolicy.REQUIRED,
        labels={"team": "web"},
        source={"kind": "github", "url": "https://example.invalid/issues/7", "ref": "7"},
        drop="fix-login.json",
        digest="e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        admitted_at=WHEN,
    ),
    "item-small.json": Item(uid="a-1", id="a", prompt="do it", project="app"),
    "item-tokens.json": Item(uid="a-2", id="a", prompt="do it", project="app", max_budget_tokens=2_000_000),
    "claim-run.json": Claim(n=1, act=Act.RUN, owner=OWNER, claimed_at=WHEN, branch=f"harness/{UID}/1"),
    "claim-hold.json": Claim(
        n=2, act=Act.HOLD, owner=Identity(incarnation="cli.t0q3ox.1", name="cli"), claimed_at=WHEN
    ),
    "claim-cancel.json": Claim(n=3, act=Act.CANCEL, owner=Identity(incarnation="cli.t0q3ox.2")),
    "end-done.json": End(
        n=1, outcome=Outcome.DONE, by="agent-1", sha="1f" * 20, nonce="5e" * 16, ended_at=WHEN, agent="claude"
    ),
    "end-failed.json": End(
        n=2,
        outcome=Outcome.FAILED,
        by="agent-1",
        reason="gate tests: exit 1",
        not_before="2027-01-15T08:00:10.000Z",
        ended_at=WHEN,
    ),
    "end-released.json": End(
        n=3,
        outcome=Outcome.RELEASED,
        by="agent-1",
        reason="waits for claude (default)",
        not_before="2027-01-15T13:00:00.000Z",
        ended_at=WHEN,
        agent="claude",
        waits="limit",
    ),
    "end-cancelled.json": End(n=0, outcome=Outcome.CANCELLED, by="ada", reason="not needed", ended_at=WHEN),
    "verdict-merged.json": Verdict(n=1, merged="2e" * 20, judged_at=WHEN),
    "verdict-returned.json": Verdict(
        n=1,
        returned="conflict",
        why="src/login.py",
        files=("src/login.py", "tests/test_login.py"),
        onto="3d" * 20,
        evidence="both changed it:\n  ours: Say what is missing\n  theirs: Rename the page",
        judged_at=WHEN,
    ),
    "verdict-gate.json": Verdict(n=1, returned="gate", gate="tests", why="exit 1", onto="3d" * 20),
    "verdict-cancelled.json": Verdict(n=1, cancelled="ada", why="not needed", judged_at=WHEN),
    "grant.json": Grant(n=3, extra=1, by="ada", why="the server was down", mode="fresh", granted_at=WHEN),
    "id.json": Name(uid=UID, digest="e3" * 32, id="fix-login"),
    "id-of-a-batch.json": Name(
        uid="plan-1-q1w2e3r4t50", digest="e3" * 32, id="plan-1", drop="plan-q1w2e3r4t5"
    ),
    "batch.json": Decision(
        drop="plan.json",
        at=WHEN,
        tree="b.coordinator.t0q3ox.00x7k2m9.3",
        items={"schema": "schema-q1w2e3r4t50", "api": "api-q1w2e3r4t51"},
        present={"docs": "docs-p0o9i8u7y6"},
        waiting=("api-q1w2e3r4t51",),
        bands={"schema-q1w2e3r4t50": 5, "api-q1w2e3r4t51": 2},
    ),
    "rejection.json": Decision(
        rejected=("line 2, column 13: priority: must be high, medium, low, or a number from 0 (first) to 9",),
        drop="bad.json",
        at=WHEN,
    ),
    "rejection-exists.json": Decision(
        rejected=(f"it is here already, as {UID}, with the same content",),
        exists=UID,
        drop="again.json",
        at=WHEN,
    ),
    "identity.json": OWNER,
}


@pytest.mark.parametrize("name", RECORDS)
def test_a_golden_record_loads(name: str) -> None:
    record = RECORDS[name]
    assert type(record).from_record(json.loads((V1 / name).read_bytes()), name) == record


@pytest.mark.parametrize("name", RECORDS)
def test_writing_a_record_gives_exactly_the_golden_bytes(name: str) -> None:
    assert RECORDS[name].to_bytes() == (V1 / name).read_bytes()


@pytest.mark.parametrize("name", RECORDS)
def test_a_reader_ignores_unknown_keys_and_refuses_an_unknown_version(name: str) -> None:
    kind, data = type(RECORDS[name]), json.loads((V1 / name).read_bytes())
    assert kind.from_record({**data, "invented_later": {"x": [1]}}) == RECORDS[name]
    for version in (0, 2, "1", None):
        with pytest.raises(StoreError, match="has version"):
            kind.from_record({**data, "v": version})


@pytest.mark.parametrize("name", RECORDS)
def test_every_record_is_one_line_of_ascii(name: str) -> None:
    raw = (V1 / name).read_bytes()
    assert raw.isascii()
    assert raw.count(b"\n") == 1
    assert raw.endswith(b"}\n")
    assert raw.startswith(b'{"v": 1, ')


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ("item.json", Item),
        ("`<n>.claim`", Claim),
        ("`<n>.end`", End),
        ("`<n>.verdict`", Verdict),
        ("`<n>.grant`", Grant),
        ("id cell", Name),
        ("batch, rejection", Decision),
    ],
)
def test_every_field_of_a_record_is_in_the_protocol_and_in_a_golden_file(
    row: str, kind: type[Record]
) -> None:
    names = {field.name for field in fields(kind)}
    (said,) = [x for x in (ROOT / "docs/protocol.md").read_text().splitlines() if x.startswith(f"| {row} |")]
    assert names <= set(re.findall(r"`(\w+)`", said.split("|")[2]))
    written = {
        key
        for name, it in RECORDS.items()
        if type(it) is kind
        for key in json.loads((V1 / name).read_bytes())
    }
    assert names <= written


def test_a_drop_is_decided_by_one_of_two_kinds_of_record() -> None:
    assert isinstance(Decided.from_record(json.loads((V1 / "item.json").read_bytes())), Item)
    assert isinstance(Decided.from_record(json.loads((V1 / "rejection.json").read_bytes())), Decision)


def test_the_three_verdicts_are_told_apart() -> None:
    kinds = {n: r.kind for n, r in RECORDS.items() if isinstance(r, Verdict)}
    assert kinds == {
        "verdict-merged.json": VerdictKind.MERGED,
        "verdict-returned.json": VerdictKind.RETURNED,
        "verdict-gate.json": VerdictKind.RETURNED,
        "verdict-cancelled.json": VerdictKind.CANCELLED,
    }


def test_cells_of_the_first_release_mean_today_what_they_meant(world: World) -> None:
    home = world.layout.queue / "open" / UID
    home.mkdir()
    for name, golden in (
        ("item.json", "item.json"),
        ("1.claim", "claim-run.json"),
        ("1.end", "end-done.json"),
        ("1.verdict", "verdict-returned.json"),
        ("2.claim", "claim-hold.json"),
    ):
        (home / name).write_bytes((V1 / golden).read_bytes())
    assert world.standing(UID) is Standing.RUNNING
    world.recover()
    assert world.standing(UID) is Standing.PARKED
    (home / "3.claim").write_bytes((V1 / "claim-cancel.json").read_bytes())
    world.recover()
    stub = world.stub(UID)
    assert stub
    assert (stub.outcome, stub.n) == ("cancelled", 3)


def test_the_format_file(layout: Layout) -> None:
    setup.make_folders(layout)
    assert (layout.queue / "FORMAT").read_bytes() == (V1 / "FORMAT").read_bytes()


def test_a_line_of_the_event_stream(layout: Layout) -> None:
    stream = EventStream(layout, FakeClock(wall=parse_rfc3339(WHEN)), "agent-1")
    stream.emit(Event.ATTEMPT_ENDED, uid=UID, n=1, outcome=Outcome.DONE, seconds=12.5)
    stream.close()
    assert (layout.events / "2027-01-15.jsonl").read_bytes() == (V1 / "event.jsonl").read_bytes()
    (layout.events / "2027-01-15.jsonl").write_bytes((V1 / "event.jsonl").read_bytes())
    ((cursor, event),) = read(layout)
    assert cursor.startswith("2027-01-15:")
    assert event["event"] == "attempt_ended"


@pytest.mark.parametrize(
    ("name", "record"),
    [
        ("lane.json", LaneRecord(epoch="merger.app.t0q3ox.00x7k2m9.1")),
        (
            "lane-pending.json",
            LaneRecord(
                epoch="merger.app.t0q3ox.00x7k2m9.1",
                pending={
                    "uid": UID,
                    "n": 1,
                    "verdict": Verdict(n=1, returned="gate", gate="tests").to_record(),
                },
            ),
        ),
    ],
)
def test_the_blob_of_the_lane(name: str, record: LaneRecord) -> None:
    assert record.to_bytes() == (V1 / name).read_bytes()


REPORTS: dict[str, Record] = {
    "agent-status.json": AgentReport(
        agent="agent-1", pid=4711, start_ticks=123456, state="running", item=UID, id="fix-login", attempt=1
    ),
    "coordinator.json": CoordinatorReport(
        pid=4700,
        state="running",
        started_at=WHEN,
        ticked_at=WHEN,
        workers=3,
        counts={"ready": 2, "running": 1},
    ),
    "project.json": ProjectReport(project="app", pid=4720, state="merging", item=UID, target="2e" * 20),
}


@pytest.mark.parametrize("name", REPORTS)
def test_reports_keep_the_keys_that_they_had(name: str) -> None:
    """Reports are no truth and may gain fields; what was there must stay."""
    golden = json.loads((V1 / name).read_bytes())
    assert type(REPORTS[name]).from_record(golden) == REPORTS[name]
    assert golden.items() <= REPORTS[name].to_record().items()


DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "protocol.md"


def test_what_is_written_is_documented() -> None:
    """The document is the contract: every folder and every field of every record is in it."""
    text = DOCUMENT.read_text()
    words = {f"queue/{name}/" for name in STORE_FOLDERS}
    for record in RECORDS.values():
        words |= {f"`{f.name}`" for f in fields(record) if not isinstance(record, Identity)}
    words |= {x.value for kind in (Act, Outcome, VerdictKind, CommitPolicy) for x in kind}
    assert {w for w in words if w not in text} == set()
    assert len(text.splitlines()) <= 300
