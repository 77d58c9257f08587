"""`harnessctl`: thin. Every verb is a module here and one function of `control` below; imported only when it is used.

`group` finds verbs and turns errors into exit codes, `verb` is what all of them share, `output` what they print with.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """The entry point of `harnessctl`. -> the exit code (DESIGN: 0, 1, 2, 3, 4, 75, 78)."""
    gc.disable()  # imports make no garbage; looking for it is a tenth of what `status` takes
    try:
        from harness.cli.group import harnessctl, run
    finally:
        gc.enable()
    try:
        return run(harnessctl, None if argv is None else list(argv))
    finally:
        gc.freeze()  # nor is there any use in looking for it when the process ends
