"""What processes say of themselves, and the hints to the merger: whole, harmless, never in the way."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from harness import procs, reports, submitted
from harness.layout import Layout
from harness.reports import AgentReport, CoordinatorReport, ProjectReport, process_of


def agent(**fields: object) -> AgentReport:
    return AgentReport.from_record({"v": 1, "agent": "agent-1", "pid": 7, **fields})


def test_a_report_is_read_as_it_was_written(layout: Layout) -> None:
    path = reports.agent_path(layout, "agent-1")
    said = agent(state="running", item="x-1", attempt=2, title="\u202e naïve \x1b[31m")
    reports.write(path, said)
    assert reports.read(path, AgentReport) == said
    assert path.read_bytes().isascii()


def test_a_report_is_replaced_whole_and_leaves_nothing_beside_it(layout: Layout) -> None:
    path = reports.coordinator_path(layout)
    for k in range(3):
        reports.write(path, CoordinatorReport(pid=k))
    assert reports.read(path, CoordinatorReport) == CoordinatorReport(pid=2)
    assert [p.name for p in path.parent.iterdir() if p.name.startswith(".coordinator")] == []


def test_the_folder_of_a_report_is_made_again_when_somebody_cleaned_run(layout: Layout) -> None:
    path = layout.project_status("app")
    path.parent.rmdir()
    reports.write(path, ProjectReport(project="app"))
    assert reports.read(path, ProjectReport) == ProjectReport(project="app")


def test_a_report_that_cannot_be_written_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    reports.write(tmp_path / "file" / "status.json", agent())
    (tmp_path / "full").symlink_to("/dev/full")
    assert reports.read(tmp_path / "file" / "status.json", AgentReport) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"v": 2, "agent": "a", "pid": 1}',
        b'{"v": 1}',
        b"[" * 200_000,
    ],
    ids=["empty", "torn", "list", "null", "bytes", "version", "fields", "deep"],
)
def test_a_report_that_cannot_be_read_is_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "status.json"
    path.write_bytes(content)
    assert reports.read(path, AgentReport) is None


def test_fields_of_a_newer_version_are_ignored(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    path.write_text(json.dumps({**agent().to_record(), "mood": "good"}))
    assert reports.read(path, AgentReport) == agent()


def test_a_report_names_the_process_that_wrote_it() -> None:
    me = procs.self_id()
    said = agent(pid=me.pid, start_ticks=me.start_ticks, boot_id=me.boot_id)
    assert process_of(said) == me
    assert not process_of(agent(pid=me.pid)).alive()


# ---- hints to the merger ---------------------------------------------------------------------------------------------


def test_what_was_submitted_is_listed_until_it_was_judged(layout: Layout) -> None:
    assert submitted.all_of(layout, "app") == []
    for uid in ("b-1", "a-1", "a-1"):
        submitted.add(layout, "app", uid)
    (layout.submitted("app") / ".hidden").touch()
    assert submitted.all_of(layout, "app") == ["a-1", "b-1"]
    submitted.remove(layout, "app", "a-1")
    submitted.remove(layout, "app", "a-1")
    assert submitted.all_of(layout, "app") == ["b-1"]
    assert submitted.all_of(layout, "web") == []


def test_a_hint_that_cannot_be_written_stops_nobody(layout: Layout) -> None:
    layout.submitted("app").touch()
    submitted.add(layout, "app", "a-1")
    submitted.remove(layout, "app", "a-1")
    assert submitted.all_of(layout, "app") == []
    assert os.path.isfile(layout.submitted("app"))
