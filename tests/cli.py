"""What tests of the command line share: running one command on one root, in this process."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from harness.cli.group import harnessctl


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """stdout as one JSON document."""
        return json.loads(self.out)


def ctl(root: Path | None, *args: str, stdin: str | None = None, **env: str) -> Said:
    """Run `harnessctl --root ROOT ARGS`."""
    head = [] if root is None else ["--root", str(root)]
    result = CliRunner().invoke(harnessctl, [*head, *args], input=stdin, env=env)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Said(code=result.exit_code, out=result.stdout, err=result.stderr)
