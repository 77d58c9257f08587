"""``python -P -m harness``: the processes that the launcher starts by their role, and the command line for the rest.

Each is imported only when it is asked for: a worker never loads the command line, `harnessctl` never loads a worker.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path

ROLES = {"merger": "harness.merger", "worker": "harness.worker.process"}
"""What the launcher starts, as ``<role> --root ROOT --agent NAME``; each module has ``main(layout, name) -> int``."""


def main() -> int:
    if "HARNESS_FAILPOINTS" in os.environ:  # to be found by the storms: never set it
        from harness import failpoints
        from harness.errors import UsageError

        try:
            failpoints.install()
        except UsageError as e:
            print(f"harness: {e}", file=sys.stderr)  # noqa: T201 - before anything can be logged
            return e.exit_code
    if len(sys.argv) > 1 and sys.argv[1] in ROLES:
        return _start(sys.argv[1], sys.argv[2:])
    from harness import cli

    return int(cli.main() or 0)


def _start(role: str, argv: list[str]) -> int:
    from harness.errors import HarnessError, UsageError
    from harness.layout import Layout

    options = dict(zip(argv[::2], argv[1::2], strict=False))
    try:
        if len(argv) != 4 or options.keys() != {"--root", "--agent"}:
            raise UsageError(
                f"usage: python -P -m harness {role} --root ROOT --agent NAME",
                remedy="people start these with: harnessctl run",
            )
        return int(import_module(ROLES[role]).main(Layout(Path(options["--root"])), options["--agent"]))
    except HarnessError as e:
        print(f"harness {role}: {e}", file=sys.stderr)  # noqa: T201 - for state/logs/<name>.out
        return e.exit_code


if __name__ == "__main__":
    sys.exit(main())
