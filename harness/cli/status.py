"""harnessctl status"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

from harness.cli.output import age, duration, emit, heading, say, table
from harness.cli.verb import Invocation, invoked, json_option, verb
from harness.terminal import printable_line

if TYPE_CHECKING:
    from harness.status import Status


@verb("status", example="$ harnessctl status\n$ harnessctl status --json | jq .queue")
@click.option("--watch", is_flag=True, help="Show it again and again, until Ctrl-C.")
@click.option(
    "--interval",
    type=click.FloatRange(min=0.1),
    default=1.0,
    show_default=True,
    metavar="S",
    help="Seconds between two looks, with --watch.",
)
@json_option
@invoked
def status(here: Invocation, watch: bool, interval: float, as_json: bool) -> None:
    """What needs you, what runs, what is queued."""
    from harness.clock import SystemClock
    from harness.status import collect

    layout, clock = here.layout(), SystemClock()
    while True:
        seen = collect(layout, clock)
        if watch and not as_json and sys.stdout.isatty():
            click.echo("\x1b[H\x1b[2J", nl=False)
        if as_json:
            emit(seen.to_json(), indent=None if watch else 2)
        else:
            show(seen, str(layout.root), clock.wall())
        if not watch:
            return
        sys.stdout.flush()
        time.sleep(interval)


def show(seen: Status, root: str, now: float) -> None:
    """The page for people: the next human action first."""
    coordinator = seen.coordinator
    if coordinator.pid:
        state = f"{coordinator.state} (pid {coordinator.pid}, up {duration(coordinator.uptime_seconds)})"
    else:
        state = "not running"
    say(f"{root}: coordinator {state}")
    if seen.needs:
        say()
        heading("Needs you")
        for need in seen.needs:
            say(f"  {printable_line(need.what, 400)}")
            if need.command:
                say(f"      -> {need.command}")
    _agents(seen, now)
    _limits(seen, now)
    _budgets(seen)
    say()
    heading("Queue")
    counts = {key: getattr(seen.queue, key) for key in type(seen.queue).__slots__}
    say("  " + ", ".join(f"{number} {key}" for key, number in counts.items() if key != "total"))
    if seen.drops:
        say(f"  {seen.drops} in the drop box, to be admitted")
    busy = [p for p in seen.projects if p.state not in ("idle", "stopped") or p.unpublished]
    if busy:
        say()
        heading("Merging")
        table(
            [
                (
                    p.project,
                    p.state,
                    p.item or "",
                    f"{p.unpublished} to publish ({p.publish})" if p.unpublished else "",
                )
                for p in busy
            ],
            indent="  ",
        )


def _limits(seen: Status, now: float) -> None:
    if not seen.limits:
        return
    from harness.clock import parse_rfc3339

    say()
    heading("Limits")
    rows = []
    for limit in seen.limits:
        left = parse_rfc3339(limit.until) - now if limit.until else 0.0
        if left > 0:
            when = f"until {limit.until} (in {duration(left)})"
        else:
            when = "being tried again" if limit.until else "until it is repaired"
        rows.append((limit.credential, limit.kind, when, f"{limit.waiting} items wait", limit.detail[:80]))
    table(rows, ("credential", "limit", "", "", ""), "  ")


def _budgets(seen: Status) -> None:
    if not seen.budgets:
        return
    say()
    heading("Budgets")
    rows = [
        (
            budget.name,
            f"{budget.usd_spent:.2f} of {budget.usd:.2f} USD" if budget.usd is not None else "",
            f"{budget.tokens_spent} of {budget.tokens} tokens" if budget.tokens is not None else "",
            f"{budget.usd_reserved:.2f} USD reserved" if budget.usd_reserved else "",
            f"{budget.waiting} items wait",
        )
        for budget in seen.budgets
    ]
    table(rows, ("budget", "spent", "", "", ""), "  ")


def _agents(seen: Status, now: float) -> None:
    if not seen.agents:
        return
    say()
    heading("Agents")
    rows = [
        (
            agent.id,
            agent.state,
            f"{agent.item_id or agent.item}.{agent.attempt}" if agent.item else "",
            agent.project if agent.item else "",
            age(agent.since or agent.started_at, now),
            agent.health,
            f"{agent.rss_mb:.0f} MB" if agent.rss_mb else "",
            agent.title if agent.item else "",
        )
        for agent in seen.agents
    ]
    table(rows, ("agent", "state", "item", "project", "since", "health", "memory", "title"), "  ")
