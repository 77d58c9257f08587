from __future__ import annotations

import ast
import errno
import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import logs, redact
from harness.logs import CappedFile, Event, Level, Log, configure
from tests.support import ROOT, environment


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(logs, "_setup", logs._Setup())
    monkeypatch.setattr(redact, "_secrets", ())
    yield
    if logs._setup.file:
        logs._setup.file.close()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Full(io.StringIO):
    def write(self, _: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(text) for text in stream.getvalue().splitlines()]


def test_a_line_has_time_level_event_and_the_bound_ids() -> None:
    stream = io.StringIO()
    configure("worker", stream=stream)
    Log(agent="agent-1").bind(uid="u1").info(Event.ITEM_CLAIMED, n=2)
    (line,) = lines(stream)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("ts"))
    assert line == {
        "level": "info",
        "event": "item_claimed",
        "process": "worker",
        "agent": "agent-1",
        "uid": "u1",
        "n": 2,
    }


def test_lines_below_the_level_are_not_written() -> None:
    stream = io.StringIO()
    configure("worker", stream=stream, level=Level.WARNING)
    Log().info(Event.ITEM_CLAIMED)
    Log().warning(Event.WORKER_HUNG)
    assert [line["event"] for line in lines(stream)] == ["worker_hung"]


def test_a_value_may_have_the_name_of_a_field_of_ours() -> None:
    stream = io.StringIO()
    configure("worker", stream=stream)
    Log().info(Event.ITEM_CLAIMED, event="x", level="y", self="z")
    (line,) = lines(stream)
    assert (line["event"], line["event_"], line["level_"], line["self_"]) == ("item_claimed", "x", "y", "z")


def test_secrets_are_redacted_in_values_and_in_tracebacks() -> None:
    stream = io.StringIO()
    configure("worker", stream=stream, secrets=["correct-horse"])
    try:
        raise ValueError("correct-horse")
    except ValueError:
        Log().error(Event.PROCESS_FAILED, exc_info=True, deep={"a": ["correct-horse"]})
    assert "correct-horse" not in stream.getvalue()
    assert "ValueError: [redacted]" in lines(stream)[0]["exception"]


def test_on_a_terminal_lines_are_pretty_and_cannot_steer_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    configure("worker", stream=stream)
    Log().info(Event.AGENT_FINISHED, said="\x1b]0;owned\x07")
    assert "agent_finished" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()
    assert not stream.getvalue().startswith("{")


def test_a_closed_stream_or_a_full_disk_ends_nothing() -> None:
    stream = io.StringIO()
    configure("worker", stream=stream)
    stream.close()
    Log().info(Event.ITEM_CLAIMED)
    configure("worker", stream=Full())
    Log().info(Event.ITEM_CLAIMED)
    CappedFile(Path("/dev/full")).write("x")


def test_the_file_gets_json_even_when_the_stream_is_a_terminal(tmp_path: Path) -> None:
    configure("worker", stream=Terminal(), file=tmp_path / "logs" / "agent-1.log")
    Log().info(Event.ITEM_CLAIMED)
    assert json.loads((tmp_path / "logs" / "agent-1.log").read_text())["event"] == "item_claimed"


def test_a_capped_file_keeps_three_files_of_at_most_its_size(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    file = CappedFile(path, max_bytes=100, keep=3)
    for k in range(100):
        file.write(f"line {k}")
    file.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.log", "x.log.1", "x.log.2"]
    assert all(p.stat().st_size <= 100 for p in tmp_path.iterdir())
    kept = "".join((tmp_path / name).read_text() for name in ("x.log.2", "x.log.1", "x.log")).splitlines()
    assert kept == [f"line {k}" for k in range(100 - len(kept), 100)]


def test_two_writers_of_one_capped_file_lose_no_line_of_the_newest_file(tmp_path: Path) -> None:
    one, other = (CappedFile(tmp_path / "x.log", max_bytes=10_000) for _ in range(2))
    for k in range(20):
        (one if k % 2 else other).write(f"line {k}")
    assert (tmp_path / "x.log").read_text().splitlines() == [f"line {k}" for k in range(20)]
    one.close()
    other.close()


# --- the vocabulary ----------------------------------------------------------------------------------------------


def test_events_are_named_by_what_they_say() -> None:
    for event in Event:
        assert event.value == event.name.lower()
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", event.value)


def uses() -> Iterator[tuple[str, ast.Call]]:
    """Every call in the product that logs or emits."""
    for path in (ROOT / "harness").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in {*Level, "log", "emit"}
                and path.name != "logs.py"
            ):
                yield f"{path.relative_to(ROOT)}:{node.lineno}", node


def test_no_free_text_is_logged_or_emitted() -> None:
    free = [
        place
        for place, call in uses()
        if not call.args or isinstance(call.args[0], ast.Constant | ast.JoinedStr | ast.BinOp)
    ]
    assert free == []


def test_only_this_module_knows_the_logging_library() -> None:
    knowing = [
        str(path.relative_to(ROOT))
        for path in (ROOT / "harness").rglob("*.py")
        if re.search(r"^\s*(import|from) (structlog|logging)\b", path.read_text(), re.MULTILINE)
    ]
    assert knowing == ["harness/logs.py"]


def test_structlog_is_imported_for_a_terminal_only_and_without_rich() -> None:
    code = """
import sys
from harness.logs import Event, Log, configure
configure("x", stream=sys.stderr)
Log().info(Event.PAUSED)
before = "structlog" in sys.modules
sys.stderr.isatty = lambda: True
configure("x", stream=sys.stderr)
Log().info(Event.PAUSED)
print(before, "structlog" in sys.modules, "rich" in sys.modules)
import rich
"""
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "True", "False"]
