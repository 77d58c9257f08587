"""harnessctl session"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.completing import complete_items
from harness.cli.output import SCHEMA_VERSION, duration, emit, heading, say, table
from harness.cli.sessions import attempts_of, cost, short, state_of, summary, tokens, usage
from harness.cli.verb import Invocation, invoked, json_option, verb
from harness.errors import UsageError

if TYPE_CHECKING:
    from harness.control.desk import Desk
    from harness.control.recounting import Entry, Healing, RoundNumbers
    from harness.control.sessions import Found
    from harness.layout import Layout
    from harness.sessionrecord import RunRecord

LAST = 20
"""Uses of tools that are shown without --all."""
TEXT = 2000
"""Characters of one entry on its line."""
VIEWS = ("show", "tools", "errors", "timeline", "metrics", "follow", "export")


@verb(
    "session",
    example="$ harnessctl session fix-login\n$ harnessctl session fix-login tools --all\n"
    "$ harnessctl session fix-login follow --raw | jq .\n$ harnessctl session fix-login.2 export fix.tar.gz",
)
@click.argument("name", metavar="ID", shell_complete=complete_items)
@click.argument("view", metavar=f"[{'|'.join(VIEWS)}]", type=click.Choice(VIEWS), default="show")
@click.argument("file", metavar="[FILE]", type=click.Path(path_type=Path), required=False)
@click.option(
    "--all", "everything", is_flag=True, help=f"With tools: each use of one, not only the last {LAST}."
)
@click.option("--raw", is_flag=True, help="With follow: what the tool writes, as it writes it.")
@json_option
@invoked
def session(
    here: Invocation, name: str, view: str, file: Path | None, everything: bool, raw: bool, as_json: bool
) -> None:
    """What an agent did: its rounds, tools, errors, times and numbers.

    ID is an item (its newest session is meant), a session (UID.N), or the id of a conversation.
    """
    for given, option, of in (
        (everything, "--all", "tools"),
        (raw, "--raw", "follow"),
        (file, "FILE", "export"),
    ):
        if given and view != of:
            raise UsageError(f"{option} is for `session ID {of}`", where=view)
    if as_json and (raw or view == "export"):
        raise UsageError("--json is not for this", where="follow --raw" if raw else view)
    from harness.control.sessions import find

    with here.desk() as desk:
        found = find(desk, name)
        if view == "follow":
            _follow(here, found, raw=raw, as_json=as_json)
        elif view == "export":
            _export(here, desk, found, file)
        elif view == "tools":
            _tools(found, everything, as_json)
        else:
            _PAGES[view](found, here.layout(), as_json)


# ---- show ------------------------------------------------------------------------------------------------------------


def _show(found: Found, layout: Layout, as_json: bool) -> None:
    from harness.control.recounting import healing
    from harness.control.sessions import of_item

    others = [one for one in of_item(layout, found.uid) if one.name != found.name]
    files = _files(found.path)
    if as_json:
        emit(
            {
                **summary(found),
                "worktree": found.record.worktree if found.record else "",
                "runs": [_run(run) for run in found.record.runs] if found.record else [],
                "healing": [
                    {
                        "attempt": h.attempt,
                        "healed": h.healed,
                        "round": h.round,
                        "number": h.number,
                        "gates": list(h.red),
                    }
                    for h in healing(found)
                ],
                "files": files,
                "other_sessions": [one.name for one in others],
            }
        )
        return
    _header(found)
    if found.record and found.record.runs:
        say()
        heading("Runs")
        table(
            [_run_row(found, run) for run in found.record.runs],
            ("round", "attempt", "by", "outcome", "took", "turns", "tokens", "cost", "why"),
            "  ",
        )
        _gates(found)
        for told in healing(found):
            say(f"  {_healed(told)}")
    say()
    heading("Files")
    say(f"  {found.place}/")
    table([(f"  {name}",) for name in files], (), "  ")
    say()
    heading("Next")
    views = ("follow",) if found.slot else ()
    for view in (*views, "timeline", "tools", "errors", "metrics"):
        say(f"  harnessctl session {found.name} {view}")
    for one in others[:5]:
        say(f"  harnessctl session {one.name}")


def _header(found: Found) -> None:
    from harness.terminal import printable_line

    record = found.record
    heading(printable_line(f"{record.item if record else found.uid}: session {found.name}"))
    if record is None:
        say("  summary.json cannot be read: what is known is in the files")
        return
    used = record.used
    rows = [
        ("state", state_of(found)),
        ("agent", record.agent + (f" ({record.adapter})" if record.adapter != record.agent else "")),
        ("project", record.project),
        ("attempts", ", ".join(attempts_of(found))),
        ("conversation", record.conversation),
        ("worktree", record.worktree),
        ("used", ", ".join(x for x in (_turns(used.turns), tokens(used), cost(used)) if x)),
    ]
    table([(key, value) for key, value in rows if value], indent="  ")


def _turns(turns: int | None) -> str:
    return "" if turns is None else f"{turns} turns"


def _run_row(found: Found, run: RunRecord) -> tuple[str, ...]:
    used = run.usage
    runs = found.record.runs if found.record else ()
    going = found.slot and run is runs[-1]
    return (
        str(run.round) + (" (goes on)" if run.resumed else ""),
        run.attempt,
        run.slot,
        run.outcome or ("running" if going else "broken off"),
        duration(run.duration_s) if run.outcome else "",
        str(used.turns) if used and used.turns is not None else "",
        tokens(used) if used else "",
        cost(used) if used else "",
        run.detail,
    )


def _gates(found: Found) -> None:
    from harness.control.recounting import judged

    runs = found.record.runs if found.record else ()
    rows = [
        (
            str(gate.round),
            gate.name,
            "red" if gate.bad else "ok",
            _took(gate.seconds),
            gate.text if gate.bad else "",
        )
        for run in runs
        for gate in judged(run)
    ]
    if rows:
        say()
        heading("Gates")
        table(rows, ("after round", "gate", "", "took", "why"), "  ")


def _healed(one: Healing) -> str:
    gates = ", ".join(one.red)
    if one.healed:
        return f"{one.attempt}: healed in round {one.number}: {gates} had been red"
    return f"{one.attempt}: still red in round {one.number}: {gates}"


def _run(run: RunRecord) -> dict[str, Any]:
    return {
        "round": run.round,
        "attempt": run.attempt,
        "slot": run.slot,
        "started_at": run.started_at,
        "outcome": run.outcome or None,
        "detail": run.detail,
        "duration_s": run.duration_s,
        "exit_code": run.exit_code,
        "signal": run.signal,
        "survivors": run.survivors,
        "asks": run.asks,
        "resumed": run.resumed,
        "usage": usage(run.usage) if run.usage else None,
        "gates": [_gate(gate) for gate in run.gates],
    }


def _gate(gate: Mapping[str, Any]) -> dict[str, Any]:
    from harness.agents.jsonl import number, text

    return {
        "name": text(gate, "name"),
        "ok": gate.get("ok") is True,
        "required": gate.get("required") is not False,
        "seconds": number(gate, "seconds"),
        "reason": text(gate, "reason"),
    }


def _files(folder: Path) -> list[str]:
    """Names of the files in the session's folder, the rounds one after the other."""
    import os
    import re

    def order(name: str) -> tuple[int, str]:
        match = re.search(r"\.([0-9]{1,9})\.[a-z]+\Z", name)
        return (int(match[1]) if match else 0, name)

    try:
        with os.scandir(folder) as entries:
            return sorted((x.name for x in entries if x.is_file(follow_symlinks=False)), key=order)
    except OSError:
        return []


# ---- tools, errors, timeline, metrics --------------------------------------------------------------------------------


def _tools(found: Found, everything: bool, as_json: bool) -> None:
    from harness.control.recounting import tools

    used = tools(found, None if everything else LAST)
    if as_json:
        emit(
            {
                "session": found.name,
                "tools": [{"name": name, "count": count} for name, count in used.counts.items()],
                "total": used.total,
                "uses": [entry_json(one) for one in used.uses],
                "truncated": len(used.uses) < used.total,
            }
        )
        return
    if not used.total:
        say("no tool was used" if found.rounds else "no agent has run yet")
        return
    table([(str(count), name) for name, count in used.counts.items()], ("times", "tool"))
    say()
    heading(
        "In order"
        if len(used.uses) == used.total
        else f"The last {len(used.uses)} of {used.total}; all: --all"
    )
    for one in used.uses:
        say(line_of(one))


def _errors(found: Found, _: Layout, as_json: bool) -> None:
    from harness.control.recounting import entries

    bad = (one for one in entries(found) if one.bad)
    if as_json:
        emit({"session": found.name, "errors": [entry_json(one) for one in bad]})
        return
    none = True
    for one in bad:
        none = False
        say(line_of(one))
    if none:
        say("nothing went wrong")


def _timeline(found: Found, _: Layout, as_json: bool) -> None:
    from harness.clock import day
    from harness.control.recounting import entries

    if as_json:
        emit({"session": found.name, "entries": [entry_json(one) for one in entries(found)]})
        return
    before: float | None = None
    date = ""
    for one in entries(found):
        if one.at is not None and (today := day(one.at)) != date:
            heading(date := today)
        gap = "" if before is None or one.at is None else f"+{_took(max(0.0, one.at - before))}"
        before = before if one.at is None else one.at
        say(f"{gap:>8}  {line_of(one)}")
    if before is None and not found.rounds:
        say("no agent has run yet")


def _metrics(found: Found, _: Layout, as_json: bool) -> None:
    from harness.control.recounting import numbers

    told = numbers(found)
    total = {
        "agent_s": round(sum(one.agent_s for one in told.rounds), 3),
        "gates_s": round(sum(one.gates_s for one in told.rounds), 3),
        "tool_uses": sum(one.tools for one in told.rounds),
        "problems": sum(one.problems for one in told.rounds),
        "text_bytes": sum(one.text_bytes for one in told.rounds),
        "stdout_bytes": sum(one.stdout_bytes for one in told.rounds),
        "stderr_bytes": sum(one.stderr_bytes for one in told.rounds),
    }
    if as_json:
        emit(
            {
                "session": found.name,
                "usage": usage(told.used),
                **total,
                "tools": dict(told.tools),
                "rounds": [_round(one) for one in told.rounds],
            }
        )
        return
    rows = [_round_row(str(one.round), one) for one in told.rounds]
    if not rows:
        say("no agent has run yet")
        return
    table(
        rows,
        (
            "round",
            "agent",
            "gates",
            "turns",
            "tokens",
            "cached",
            "cost",
            "tools",
            "problems",
            "text",
            "stdout",
        ),
    )
    rest = (
        ("used", ", ".join(x for x in (_turns(told.used.turns), tokens(told.used), cost(told.used)) if x)),
        ("time", f"agent {_took(total['agent_s'])}, gates {_took(total['gates_s'])}"),
        ("text", f"{short(total['text_bytes'])} bytes said, {short(total['stdout_bytes'])} bytes written"),
        ("tools", ", ".join(f"{name} {count}" for name, count in told.tools.items())),
    )
    say()
    table([(key, value) for key, value in rest if value])


def _round_row(name: str, one: RoundNumbers) -> tuple[str, ...]:
    used = one.used
    return (
        name,
        _took(one.agent_s),
        _took(one.gates_s),
        "" if used.turns is None else str(used.turns),
        tokens(used),
        "" if used.tokens_cached is None else short(used.tokens_cached),
        cost(used),
        str(one.tools),
        str(one.problems),
        short(one.text_bytes),
        short(one.stdout_bytes),
    )


def _round(one: RoundNumbers) -> dict[str, Any]:
    return {
        "round": one.round,
        "attempt": one.attempt,
        "outcome": one.outcome or None,
        "agent_s": one.agent_s,
        "gates_s": one.gates_s,
        "usage": usage(one.used),
        "tool_uses": one.tools,
        "problems": one.problems,
        "text_bytes": one.text_bytes,
        "stdout_bytes": one.stdout_bytes,
        "stderr_bytes": one.stderr_bytes,
    }


_PAGES: dict[str, Callable[[Found, Layout, bool], None]] = {
    "show": _show,
    "errors": _errors,
    "timeline": _timeline,
    "metrics": _metrics,
}


# ---- follow, export --------------------------------------------------------------------------------------------------


def _follow(here: Invocation, found: Found, *, raw: bool, as_json: bool) -> None:
    from harness.control.following import follow, follow_raw

    layout = here.layout()
    if not found.slot:
        here.note(f"nobody has {found.name} in hand now: this is its last run")
    if not raw:
        for entry in follow(layout, found):
            if as_json:
                shown = {"schema_version": SCHEMA_VERSION, "session": found.name, **entry_json(entry)}
                click.echo(json.dumps(shown))
            else:
                say(line_of(entry))
            sys.stdout.flush()
        return
    from harness.redact import redact
    from harness.terminal import printable

    for one in follow_raw(layout, found):
        text = printable(redact(one.line.decode("utf-8", "replace")))
        click.echo(text, err=one.stream.value == "stderr")
        sys.stdout.flush()


def _export(here: Invocation, desk: Desk, found: Found, file: Path | None) -> None:
    from harness.control.exporting import export

    done = export(desk, found, file or Path(f"{found.name}.tar.gz"))
    for name in done.left_out:
        here.note(f"left out: {name}")
    here.note(
        "without home/; what looks like a key is blanked, the rest is as it was: read it before you hand it on"
    )
    say(str(done.path))


# ---- entries ---------------------------------------------------------------------------------------------------------


def line_of(entry: Entry) -> str:
    """One entry on one line."""
    from harness.terminal import printable_line

    took = f" ({_took(entry.seconds)})" if entry.seconds is not None else ""
    name = printable_line(entry.name, 100)
    text = printable_line(entry.text, TEXT)
    words = f"{name}{': ' if name and text else ''}{text}{took}"
    return f"{_clock(entry.at):<12}  {entry.round:>2}  {printable_line(entry.kind, 20):<8}  {words}".rstrip()


def entry_json(entry: Entry) -> dict[str, Any]:
    from harness.clock import rfc3339

    return {
        "round": entry.round,
        "kind": entry.kind,
        "at": None if entry.at is None else rfc3339(entry.at),
        "name": entry.name,
        "text": entry.text,
        "seconds": entry.seconds,
        "bad": entry.bad,
    }


def _clock(at: float | None) -> str:
    """``08:00:00.123`` UTC, as the records say it."""
    from harness.clock import rfc3339

    return "" if at is None else rfc3339(at)[11:23]


def _took(seconds: float | None) -> str:
    """``0.25s``, ``7s``, ``5m 6s``."""
    if seconds is None:
        return ""
    return f"{seconds:.2f}s" if seconds < 10 else duration(seconds)
