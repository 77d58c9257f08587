"""What happened in one session, recounted from its summary and its events: entries in order, tools, healing, numbers.

Values hold what agents wrote, as they wrote it: to be made printable before they are shown.
"""

from __future__ import annotations

import json
import os
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness import sessionevents
from harness.agents import jsonl
from harness.clock import parse_rfc3339
from harness.control.sessions import Found
from harness.dataclass import dataclass
from harness.sessionrecord import LARGEST, RunRecord, Spent

TOOL_NAMES = 200
"""So many different tools are counted by name; the rest together, as `OTHERS`."""
OTHERS = "(others)"
RUN, END, GATE, TOOL = "run", "end", "gate", "tool"
TROUBLE = frozenset({"problem", "give_up", "limit", "retrying", "lost_session"})
_LAST_MOMENT = 253_402_300_000.0
"""9999-12-31: later ones have no date."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One thing that happened. `kind`: ``run``, ``end``, ``gate``, or an event's (``text``, ``tool``, ``usage``, ...)."""

    round: int
    kind: str
    at: float | None = None
    """Wall clock; None: not known."""
    name: str = ""
    """Of the tool, the gate, the kind of problem or limit, the outcome."""
    text: str = ""
    seconds: float | None = None
    """How long it took; None: it is a moment."""
    bad: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Healing:
    """How the gates went over the rounds of one attempt."""

    attempt: str
    healed: bool
    """No required gate is red any more."""
    round: int
    """The last that was judged."""
    number: int
    """The same, counted from the first round of this attempt."""
    red: tuple[str, ...]
    """Required gates that were red: before that, or, when it is not healed, in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What tools were used. `counts`: the most used first; `uses`: in order, the last ones; `total`: of all."""

    counts: Mapping[str, int]
    uses: tuple[Entry, ...]
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundNumbers:
    """One run in numbers."""

    round: int
    attempt: str = ""
    outcome: str = ""
    agent_s: float = 0.0
    gates_s: float = 0.0
    used: Spent = Spent()
    """While it runs: as far as it has said."""
    tools: int = 0
    problems: int = 0
    text_bytes: int = 0
    """What the agent said between its tools, as far as events keep it."""
    stdout_bytes: int = 0
    stderr_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """A session in numbers."""

    rounds: tuple[RoundNumbers, ...]
    used: Spent
    tools: Mapping[str, int]
    """The most used first."""


def entries(found: Found) -> Iterator[Entry]:
    """Everything, in order. Reads as it goes: events files may be large."""
    for k, run in runs(found):
        if run is not None:
            yield began(run)
        yield from said(found.folder.events(k), k)
        if run is not None:
            yield from ended(found, run)


def runs(found: Found) -> Iterator[tuple[int, RunRecord | None]]:
    """Rounds with their records, as far as there are any."""
    if found.record is None:
        yield from ((k, None) for k in range(1, found.rounds + 1))
    else:
        yield from ((run.round, run) for run in found.record.runs)


def said(path: Path, k: int) -> Iterator[Entry]:
    """The events of one run."""
    return (entry_of(event, k) for event in sessionevents.read(path))


def began(run: RunRecord) -> Entry:
    resumed = ", goes on with the conversation" if run.resumed else ""
    text = f"attempt {run.attempt} by {run.slot}{resumed}"
    return Entry(round=run.round, kind=RUN, at=moment(run.started_at), text=text)


def ended(found: Found, run: RunRecord) -> Iterator[Entry]:
    """The end of a run, if it has ended, and what the gates said of it."""
    last = found.record is not None and run.round == found.record.runs[-1].round
    if not run.outcome and found.slot and last:
        return
    start = moment(run.started_at)
    yield Entry(
        round=run.round,
        kind=END,
        at=None if start is None or not run.outcome else start + run.duration_s,
        name=run.outcome or "unknown",
        text=run.detail or ("" if run.outcome else "whoever ran it was ended, and nobody has gone on since"),
        seconds=run.duration_s if run.outcome else None,
        bad=run.outcome != "ok",
    )
    yield from judged(run)


def judged(run: RunRecord) -> Iterator[Entry]:
    for gate in run.gates:
        ok = gate.get("ok") is True
        yield Entry(
            round=run.round,
            kind=GATE,
            name=jsonl.text(gate, "name"),
            text="ok" if ok else jsonl.text(gate, "reason") or "red",
            seconds=jsonl.number(gate, "seconds"),
            bad=not ok,
        )


def entry_of(event: Mapping[str, Any], k: int) -> Entry:
    """An event as it is in a file: any JSON."""
    kind = jsonl.text(event, "kind") or "unknown"
    at = jsonl.number(event, "t")
    at = at if at is not None and at < _LAST_MOMENT else None
    name, text = _words(kind, event)
    return Entry(round=k, kind=kind, at=at, name=name, text=text, bad=kind in TROUBLE)


def _words(kind: str, event: Mapping[str, Any]) -> tuple[str, str]:
    """-> (name, text)"""
    match kind:
        case "text" | "final":
            return "", jsonl.text(event, "text")
        case "tool":
            return jsonl.text(event, "name"), jsonl.text(event, "detail")
        case "problem":
            return jsonl.text(event, "what"), jsonl.text(event, "text")
        case "give_up":
            return "", jsonl.text(event, "outcome")
        case "started":
            return jsonl.text(event, "model"), jsonl.text(event, "session")
        case "limit" if event.get("blocked") is False:
            return jsonl.text(event, "what"), "a warning" + _rest(event, "what", "blocked")
        case _:
            return jsonl.text(event, "what"), _rest(event, "what").removeprefix(", ")


def _rest(event: Mapping[str, Any], *known: str) -> str:
    """The fields that have no place of their own: ``, delay_s 5, attempt 2``."""
    skip = {"t", "kind", *known}
    pairs = ((key, value) for key, value in event.items() if key not in skip)
    return "".join(
        f", {key} {value if isinstance(value, str) else json.dumps(value)}" for key, value in pairs
    )


def moment(text: str) -> float | None:
    """RFC 3339 -> wall clock; None for anything else."""
    try:
        at = parse_rfc3339(text)
    except (ValueError, OverflowError):
        return None
    return at if 0 <= at < _LAST_MOMENT else None


def tools(found: Found, last: int | None = None) -> Tools:
    """Which tools were used; of the uses only the `last` ones are kept, None: all."""
    counts: Counter[str] = Counter()
    uses: deque[Entry] = deque(maxlen=last)
    for k, _ in runs(found):
        for one in said(found.folder.events(k), k):
            if one.kind == TOOL:
                _count_tool(counts, one.name)
                uses.append(one)
    return Tools(counts=dict(counts.most_common()), uses=tuple(uses), total=counts.total())


def _count_tool(counts: Counter[str], name: str) -> None:
    name = name or "?"
    counts[name if name in counts or len(counts) < TOOL_NAMES else OTHERS] += 1


def healing(found: Found) -> tuple[Healing, ...]:
    """Of each attempt in which a required gate was red."""
    attempts: dict[str, list[RunRecord]] = {}
    for run in found.record.runs if found.record else ():
        attempts.setdefault(run.attempt, []).append(run)
    out = []
    for attempt, rounds in attempts.items():
        judged = [(number, run) for number, run in enumerate(rounds, 1) if run.gates]
        ever = dict.fromkeys(name for _, run in judged for name in _red(run))
        if not ever:
            continue
        number, last = judged[-1]
        red = _red(last)
        out.append(
            Healing(attempt=attempt, healed=not red, round=last.round, number=number, red=red or tuple(ever))
        )
    return tuple(out)


def _red(run: RunRecord) -> tuple[str, ...]:
    """The required gates that did not pass."""
    required = (gate for gate in run.gates if gate.get("required") is not False)
    return tuple(jsonl.text(gate, "name") for gate in required if gate.get("ok") is not True)


def numbers(found: Found) -> Numbers:
    """Reads every events file once."""
    tools: Counter[str] = Counter()
    rounds = []
    for k, run in runs(found):
        rounds.append(_numbers(found, k, run, tools))
    used = Spent()
    for one in rounds:
        used = used.plus(one.used)
    return Numbers(rounds=tuple(rounds), used=used, tools=dict(tools.most_common()))


def _numbers(found: Found, k: int, run: RunRecord | None, tools: Counter[str]) -> RoundNumbers:
    uses = problems = text_bytes = 0
    live: Mapping[str, Any] = {}
    for event in sessionevents.read(found.folder.events(k)):
        match event.get("kind"):
            case "tool":
                uses += 1
                _count_tool(tools, jsonl.text(event, "name"))
            case "text":
                text_bytes += len(jsonl.text(event, "text").encode("utf-8", "replace"))
            case "problem":
                problems += 1
            case "usage":
                live = event
            case _:
                pass
    known = run.usage if run else None
    return RoundNumbers(
        round=k,
        attempt=run.attempt if run else "",
        outcome=run.outcome if run else "",
        agent_s=run.duration_s if run else 0.0,
        gates_s=round(sum(gate.seconds or 0.0 for gate in judged(run)), 3) if run else 0.0,
        used=known or _so_far(live),
        tools=uses,
        problems=problems,
        text_bytes=text_bytes,
        stdout_bytes=_size(found.folder.stdout(k)),
        stderr_bytes=_size(found.folder.stderr(k)),
    )


def _so_far(usage: Mapping[str, Any]) -> Spent:
    """By the last word of a run that has not ended, or whose end nobody has seen."""
    if not usage:
        return Spent()
    cost = jsonl.number(usage, "cost_usd")
    return Spent(
        tokens_in=_count(usage, "tokens_in"),
        tokens_cached=_count(usage, "tokens_cached"),
        tokens_out=_count(usage, "tokens_out"),
        cost_usd=cost if cost is None or cost < LARGEST else None,
        turns=_count(usage, "turns"),
        estimated=True,
    )


def _count(usage: Mapping[str, Any], key: str) -> int | None:
    value = jsonl.count(usage, key)
    return value if value is None or value < LARGEST else None


def _size(path: Path) -> int:
    try:
        return os.stat(path, follow_symlinks=False).st_size
    except OSError:
        return 0
