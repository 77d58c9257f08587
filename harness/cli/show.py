"""harnessctl show"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from harness.cli.completing import complete_items
from harness.cli.items import summary
from harness.cli.output import emit, heading, say, table
from harness.cli.verb import Invocation, invoked, json_option, verb
from harness.model import Act, State

if TYPE_CHECKING:
    from harness.layout import Layout
    from harness.model import Attempt
    from harness.store.view import Seen


@verb("show", example="$ harnessctl show fix-login\n$ harnessctl show fix-login --json | jq '.attempts[-1]'")
@click.argument("name", metavar="ID", shell_complete=complete_items)
@json_option
@invoked
def show(here: Invocation, name: str, as_json: bool) -> None:
    """Everything known of one item, and where to look."""
    from harness.control.holdups import Holdups

    with here.desk() as desk:
        seen = Holdups(desk).told(desk.view.find(name))
    layout = here.layout()
    if as_json:
        emit(details(seen, layout))
    else:
        _page(seen, layout)


def details(seen: Seen, layout: Layout) -> dict[str, Any]:
    """One item as JSON: `id, uid, state, attempts[]` are kept for ever."""
    item = seen.item
    more: dict[str, Any] = {}
    if item:
        more = {
            "prompt": item.prompt,
            "agents": list(item.agents),
            "depends_on": [
                {"id": dep, "uid": uid, "optional": dep in item.optional_deps}
                for dep, uid in item.deps.items()
            ],
            "files": list(item.files),
            "protected": list(item.protected),
            "not_before": item.not_before,
            "max_attempts": item.max_attempts,
            "timeout_s": item.timeout_s,
            "max_budget_usd": item.max_budget_usd,
            "max_budget_tokens": item.max_budget_tokens,
            "commit": item.commit.value,
            "source": dict(item.source),
            "drop": item.drop,
        }
    attempts = _attempts_of(seen, layout)
    return {**summary(seen), **more, "place": seen.place, "attempts": attempts}


def _attempts_of(seen: Seen, layout: Layout) -> list[dict[str, Any]]:
    folders = _sessions(layout, seen.uid)
    return [_attempt(seen, one, folders.get(f"{seen.uid}.{one.n}")) for one in seen.attempts]


def _attempt(seen: Seen, one: Attempt, session: str | None) -> dict[str, Any]:
    claim, end, verdict = one.claim, one.end, one.verdict
    tools = seen.item.agents if seen.item else ()
    is_run = claim is None or claim.act is Act.RUN
    return {
        "n": one.n,
        "agent": (end.agent if end and end.agent else tools[0] if tools and is_run else None),
        "slot": claim.owner.name if claim else None,
        "act": claim.act.value if claim else None,
        "claimed_at": claim.claimed_at if claim else None,
        "ended_at": end.ended_at if end else None,
        "outcome": end.outcome.value if end else None,
        "reason": (end.reason if end else "") or "",
        "sha": end.sha if end else None,
        "verdict": verdict.kind.value if verdict else None,
        "verdict_reason": verdict.why if verdict else "",
        "merged": verdict.merged if verdict else None,
        "evidence": verdict.evidence if verdict else "",
        "branch": claim.branch if claim and claim.branch else None,
        "session": session,
        "granted_by": one.grant.by if one.grant else None,
    }


def _sessions(layout: Layout, uid: str) -> dict[str, str]:
    """``<uid>.<n>`` of attempts -> the folder of the session in which each worked, below the root."""
    from harness.control.sessions import of_item

    found = of_item(layout, uid)
    own = {one.name: one.place for one in reversed(found)}
    went_on = {run.attempt: one.place for one in reversed(found) if one.record for run in one.record.runs}
    return own | went_on


def _page(seen: Seen, layout: Layout) -> None:
    item = seen.item
    heading_text = f"{seen.id}: {item.title}" if item else seen.id
    heading(_plain(heading_text))
    rows = [("state", seen.state.value + (f": {seen.reason}" if seen.reason else "")), ("uid", seen.uid)]
    if item:
        rows += [
            ("project", item.project),
            ("agent", ", ".join(item.agents)),
            ("priority", str(item.priority)),
            ("convoy", item.convoy),
            ("depends on", ", ".join(item.deps)),
            ("files", ", ".join(item.files)),
            ("not before", item.not_before or ""),
            ("labels", ", ".join(f"{k}={v}" for k, v in item.labels.items())),
            ("admitted", f"{item.admitted_at} from {item.drop}" if item.drop else item.admitted_at),
        ]
    rows.append(("on disk", seen.place))
    table([(key, value) for key, value in rows if value], indent="  ")
    if seen.attempts:
        _attempts(seen, layout)
    if item:
        say()
        heading("Prompt")
        say("\n".join("  " + line for line in item.prompt.strip().splitlines()))
    if commands := _commands(seen):
        say()
        heading("Next")
        for command in commands:
            say(f"  {command}")


def _attempts(seen: Seen, layout: Layout) -> None:
    say()
    heading("Attempts")
    rows = []
    attempts = _attempts_of(seen, layout)
    for one in attempts:
        outcome = one["verdict"] or one["outcome"] or "running"
        why = one["verdict_reason"] or one["reason"]
        commit = (one["merged"] or one["sha"] or "")[:12]
        session = (one["session"] or "").rpartition("/")[2]
        rows.append(
            (str(one["n"]), one["slot"] or "", one["claimed_at"] or "", outcome, commit, session, why)
        )
    table(rows, ("n", "by", "claimed at", "outcome", "commit", "session", "why"), "  ")
    last = attempts[-1]
    if last["evidence"]:
        say()
        heading("Why it came back")
        say("\n".join("  " + line for line in last["evidence"].splitlines()[:40]))
    if last["session"]:
        say()
        say(f"  what the agent did: harnessctl session {last['session'].rpartition('/')[2]}")
        say(f"  all of it: {last['session']}/")


def _commands(seen: Seen) -> list[str]:
    if seen.item is None and seen.state is State.PARKED:  # a record is damaged
        return ["harnessctl fsck"]
    match seen.state:
        case State.PARKED:
            return [f"harnessctl retry {seen.uid}", f"harnessctl cancel {seen.uid}"]
        case State.RUNNING | State.MERGING | State.MERGED:
            return [f"harnessctl diff {seen.uid}"]
        case State.WAITING:
            return [f"harnessctl retry --without-waiting {seen.uid}"]
        case State.REJECTED:
            return [f"correct {seen.place}/raw.* and submit it again"]
        case _:
            return []


def _plain(text: str) -> str:
    from harness.terminal import printable_line

    return printable_line(text)
