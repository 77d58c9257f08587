"""`harnessctl demo`: the real daemon at work on a real repository, in a folder of its own, with a scripted agent.

`work` is the plan and what the agent will write, `agent` the agent (a process of its own), `scene` builds the
repository and the root, `daemon` starts, kills and ends processes, `board` is what is known, `screen` shows it,
`outcome` proves the result. Nothing here is used by the daemon; the demo meets it in the file system, as a person does.
"""

from __future__ import annotations

from pathlib import Path


def main(workers: int = 3, keep: Path | None = None) -> int:
    """Run the demo. -> exit code: 0 when every item was merged exactly once, the tests of the result pass and nothing
    is left running. `keep`: an empty or new folder that stays; without it everything is removed."""
    from harness.demo.show import show

    return show(workers, keep)
