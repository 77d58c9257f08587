"""What the tests of the adapters of codex, gemini and opencode share: recorded runs, and lines that are broken on purpose.

A recording in ``tests/data/agents`` is the tool's stdout; its last line tells the exit code and the lines of stderr.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.agents.base import Adapter, AgentEvent, Stream, Task, Usage
from harness.agents.outcomes import AgentOutcome
from harness.config import Agent
from harness.dataclass import dataclass
from harness.runner import Ended, EndReason

NOW = 1_767_312_200.0
"""2026-01-02 00:03:20 UTC: when the recordings were made."""
SESSION = "1726a731-cf7a-4480-ab77-b6c24d2fb801"
RECORDINGS = Path(__file__).parent / "data" / "agents"
FUZZ_LINES = int(os.environ.get("HARNESS_FUZZ_LINES", "15000"))
"""Of all tools together."""
KEPT_CHARS = 400_000
"""More than an adapter may keep of a run, however long that is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    stdout: tuple[bytes, ...]
    stderr: tuple[bytes, ...]
    exit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    events: list[AgentEvent]
    outcome: AgentOutcome
    usage: Usage | None
    state: Mapping[str, Any]

    def of(self, kind: type[AgentEvent]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


def recording(name: str) -> Recording:
    *stdout, last = (RECORDINGS / f"{name}.jsonl").read_bytes().splitlines()
    trailer = json.loads(last)["_trailer"]
    return Recording(
        stdout=tuple(stdout),
        stderr=tuple(line.encode() for line in trailer["stderr"]),
        exit=trailer["exit"],
    )


def replay(adapter: Adapter, name: str, ended: Ended | None = None) -> Replayed:
    """The recording `name`, its stderr before the last line of its stdout; `ended` instead of how it did end."""
    told = recording(name)
    lines = [(Stream.STDOUT, line) for line in told.stdout]
    lines[-1:-1] = [(Stream.STDERR, line) for line in told.stderr]
    if not told.stdout:
        lines = [(Stream.STDERR, line) for line in told.stderr]
    return told_by(adapter, lines, ended or exited(told.exit))


def say(adapter: Adapter, *said: Mapping[str, Any] | str, ended: Ended | None = None) -> Replayed:
    """Objects for stdout, strings for stderr."""
    lines = [
        (Stream.STDERR, line.encode())
        if isinstance(line, str)
        else (Stream.STDOUT, json.dumps(line).encode())
        for line in said
    ]
    return told_by(adapter, lines, ended or exited(0))


def note(adapter: Adapter, *said: Mapping[str, Any]) -> list[AgentEvent]:
    """Objects for the tool's own record of the conversation."""
    lines = [json.dumps(line).encode() for line in said]
    return [event for line in lines for event in adapter.feed(Stream.JOURNAL, line)]


def told_by(adapter: Adapter, lines: Sequence[tuple[Stream, bytes]], ended: Ended) -> Replayed:
    events = [event for stream, line in lines for event in adapter.feed(stream, line)]
    outcome = adapter.finish(ended, NOW)
    return Replayed(events=events, outcome=outcome, usage=adapter.usage(), state=adapter.state())


def exited(code: int) -> Ended:
    if code < 0:
        return Ended(reason=EndReason.EXITED, signal=-code, duration_s=1.0)
    return Ended(reason=EndReason.EXITED, exit_code=code, duration_s=1.0)


STALLED = Ended(reason=EndReason.STALLED, signal=9, duration_s=900.0)
TIMED_OUT = Ended(reason=EndReason.TIMED_OUT, signal=9, duration_s=60.04)
STOPPED = Ended(reason=EndReason.STOPPED, exit_code=0, duration_s=5.0, stop_reason="drain")
KILLED = Ended(reason=EndReason.EXITED, signal=9, duration_s=5.0)


def task(folder: Path, **more: Any) -> Task:
    home = folder / "home"
    home.mkdir(exist_ok=True)
    given: dict[str, Any] = {
        "item": "fix",
        "mark": "fix-x7.2",
        "slot": "agent-1",
        "agent": "tool",
        "session": SESSION,
        "round": 1,
        "prompt": "do it",
        "prompt_file": folder / "prompt.1.md",
        "worktree": folder / "tree",
        "folder": folder,
        "home": home,
        "tmp": folder / "tmp",
        "interrupt_file": folder / "ask" / "interrupt.json",
        "findings_file": folder / "ask" / "findings.md",
    }
    return Task(**(given | more))


def agent(adapter: str, **more: Any) -> Agent:
    return Agent(adapter=adapter, **more)  # type: ignore[arg-type]


# --- broken lines

_WRONG: tuple[Any, ...] = (
    None,
    True,
    -1,
    1e308,
    10**400,
    float("nan"),
    float("inf"),
    "",
    "-x",
    "\ud800",
    "Reconnecting... 99999999999/5",
    "try again at 99:99 PM",
    "x" * 5000,
    [],
    {},
    [[]],
    {"message": 7},
    "429",
)


def storm(
    make: Callable[[], Adapter],
    names: Sequence[str],
    lines: int,
    seed: int,
    noted: Sequence[bytes] = (),
) -> None:
    """Feeds `lines` mutated lines of the recordings `names`, and of a record that the tool keeps itself; fails when
    something raises or when too much is kept."""
    chance = random.Random(seed)
    told = [recording(name) for name in names]
    known = [(Stream.STDOUT, line) for run in told for line in run.stdout]
    known += [(Stream.STDERR, line) for run in told for line in run.stderr]
    known += [(Stream.JOURNAL, line) for line in noted] * max(1, len(known) // 20)
    ends = [exited(0), exited(1), exited(2), exited(145), exited(255), STALLED, TIMED_OUT, STOPPED, KILLED]
    fed = 0
    while fed < lines:
        adapter = make()
        for _ in range(chance.choice((1, 5, 40, 400))):
            stream, line = chance.choice(known)
            adapter.feed(stream, mutated(line, chance))
            fed += 1
        adapter.finish(chance.choice(ends), NOW)
        adapter.usage()
        json.dumps(adapter.state())
        assert kept_chars(adapter) < KEPT_CHARS


def mutated(line: bytes, chance: random.Random) -> bytes:
    how = chance.randrange(8)
    if how == 0:
        return line[: chance.randrange(len(line) + 1)]
    if how == 1:
        at = chance.randrange(len(line) + 1)
        return line[:at] + chance.randbytes(chance.randrange(1, 9)) + line[at + chance.randrange(3) :]
    if how == 2:
        return b"[" * 2000 + line
    try:
        said = json.loads(line)
    except ValueError:
        return line
    for _ in range(chance.randrange(4)):
        spoil(said, chance)
    return json.dumps(said).encode()


def spoil(said: Any, chance: random.Random) -> None:
    """One value somewhere below becomes a wrong one, goes away, or comes under another name."""
    if not isinstance(said, dict) or not said:
        return
    key = chance.choice(list(said))
    if isinstance(said[key], dict) and said[key] and chance.random() < 0.7:
        spoil(said[key], chance)
    elif chance.random() < 0.15:
        del said[key]
    elif chance.random() < 0.1:
        said[str(chance.choice(_WRONG))] = said.pop(key)
    else:
        said[key] = copy.deepcopy(chance.choice(_WRONG))  # it may be spoilt too


def kept_chars(found: Any) -> int:
    """Characters and entries that an object holds, all the way down."""
    if isinstance(found, str | bytes):
        return len(found)
    if isinstance(found, Mapping):
        return sum(1 + kept_chars(key) + kept_chars(value) for key, value in found.items())
    if isinstance(found, Sequence) or hasattr(found, "maxlen"):
        return sum(1 + kept_chars(value) for value in found)
    if isinstance(found, Agent | Task):
        return 0  # given to it
    if dataclasses.is_dataclass(found):
        return sum(kept_chars(getattr(found, field.name)) for field in dataclasses.fields(found))
    return kept_chars(vars(found)) if hasattr(found, "__dict__") else 1
