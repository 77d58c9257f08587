"""harnessctl doctor"""

from __future__ import annotations

import click

from harness.cli.output import emit
from harness.cli.verb import Invocation, invoked, json_option, verb
from harness.terminal import printable_line

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@verb(
    "doctor",
    example="$ harnessctl doctor\n$ harnessctl doctor --json | jq '.checks[] | select(.level != \"ok\")'",
)
@json_option
@invoked
def doctor(here: Invocation, as_json: bool) -> int:
    """Does everything work here? What to do where it does not."""
    from harness.doctor import Level, examine

    checks = []
    for check in examine(here.layout()):
        checks.append(check)
        if as_json or (here.quiet and check.level is Level.OK):
            continue
        word = click.style(f"{check.level.value:<4}", fg=_COLOURS[check.level.value])
        click.echo(f"{word}  {printable_line(check.name, 40):<14}  {printable_line(check.detail, 500)}")
        if check.remedy:
            click.echo(f"{'':22}-> {printable_line(check.remedy, 500)}")
    failed = sum(check.level is Level.FAIL for check in checks)
    if as_json:
        listed = [
            {"name": c.name, "level": c.level.value, "detail": c.detail, "remedy": c.remedy} for c in checks
        ]
        emit({"ok": failed == 0, "checks": listed})
    elif not here.quiet:
        warned = sum(check.level is Level.WARN for check in checks)
        here.note(f"{failed} failed, {warned} warnings, {len(checks) - failed - warned} ok")
    return 1 if failed else 0
