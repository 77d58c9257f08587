"""harnessctl fsck"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from harness.cli.output import emit, say
from harness.cli.verb import Invocation, invoked, json_option, verb

if TYPE_CHECKING:
    from harness.store.violations import Violation


@verb("fsck", example="$ harnessctl fsck\n$ harnessctl fsck --git\n$ harnessctl fsck --repair")
@click.option(
    "--repair", "mend", is_flag=True, help="Put right what needs no guessing; no coordinator may run."
)
@click.option("--git", is_flag=True, help="Also every object of the hubs (git fsck).")
@json_option
@invoked
def fsck(here: Invocation, mend: bool, git: bool, as_json: bool) -> int:
    """Check every invariant of the store."""
    with here.desk(any_format=True) as desk:
        from harness.control.checking import check

        checked = check(desk, mend=mend, git=git)
    if as_json:
        emit(
            {
                "ok": checked.healthy,
                "violations": [_plain(v) for v in checked.left],
                "repaired": [_plain(v) for v in checked.repaired],
            }
        )
        return 0 if checked.healthy else 1
    for violation in checked.repaired:
        say(f"repaired  {violation}")
    for violation in checked.left:
        word = "leftover" if violation.harmless else "BROKEN"
        remedy = f" -> {violation.repair.value}" if violation.repair else ""
        say(f"{word:<8}  {violation}{remedy}")
    if not here.quiet:
        say(_summary(checked.left))
    return 0 if checked.healthy else 1


def _summary(left: tuple[Violation, ...]) -> str:
    broken = sum(not v.harmless for v in left)
    if broken:
        return f"{broken} violations; what names a repair: harnessctl fsck --repair. The rest needs a person (docs/protocol.md)"
    if left:
        return f"healthy; {len(left)} leftovers of crashes, which a coordinator sweeps up by itself"
    return "healthy"


def _plain(violation: Violation) -> dict[str, Any]:
    return {
        "invariant": violation.invariant,
        "path": violation.path,
        "what": violation.what,
        "harmless": violation.harmless,
        "repair": violation.repair.value if violation.repair else None,
    }
