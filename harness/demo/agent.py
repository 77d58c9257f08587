"""The scripted agent of the demo: a program of its own that does what a coding agent does, without a model.

It is started by a worker as any tool is: in a worktree, with a prompt in a file. It reads the prompt, thinks (sleeps),
edits files, runs the tests and commits. What it does differently the next time, it does because the *prompt* says so:
the evidence of a red gate, an expired attempt or a conflict stands there. Only the standard library is imported.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from harness.demo.work import FORMATS, PLAN, Manner, Work

STEP_S = 0.1
SLOW_S = 10.0
"""How long a slow attempt takes; the demo kills its worker long before."""
RIVAL_S = 90.0
"""How long a late one waits for its rival to be merged, at most."""
ALONE = "WORDKIT_ALONE"
"""Set when there is one worker only: then no rival can be merged meanwhile."""


def main() -> int:
    prompt = Path(os.environ["HARNESS_PROMPT_FILE"]).read_text(encoding="utf-8")
    work = PLAN[os.environ["HARNESS_ITEM"]]
    told = _told(prompt)
    say(f"{work.title}" + (f" [{told}]" if told else ""))
    think(work.think_s)
    match work.manner:
        case Manner.CARELESS if not told:
            return carelessly(work)
        case Manner.STUBBORN if not told.startswith("attempt 1"):
            return carelessly(work)
        case Manner.SLOW if not told:
            slowly(work)
        case Manner.LATE if not told:
            write(work, work.files)
            wait_for_rival()
        case _:
            pass
    write(work, work.files)
    if not tests_pass():
        return 1
    return commit(work)


def _told(prompt: str) -> str:
    """What the harness says went wrong before; "" the first time."""
    if found := re.search(r"^[# ]*Failed check: (\S+)", prompt, re.MULTILINE):
        return f"check {found[1]} failed"
    if found := re.search(r"Attempt (\d+) (failed|expired|was not merged)", prompt):
        return f"attempt {found[1]} {found[2]}"
    return ""


def carelessly(work: Work) -> int:
    """Commits what was never tried."""
    write(work, work.wrong)
    say("looks right to me: no need to run the tests")
    return commit(work)


def slowly(work: Work) -> None:
    """Half of the work, then a long think. Whoever kills us here loses that half, and nothing else."""
    path, text = next(iter(work.files.items()))
    Path(path).write_text(text[: len(text) // 2], encoding="utf-8")
    say(f"half of {path} is written")
    think(SLOW_S)


def wait_for_rival() -> None:
    """Until somebody else's change of the same line was merged: what we commit then conflicts with it."""
    deadline = time.monotonic() + (0 if os.environ.get(ALONE) else RIVAL_S)
    before = git("show", f"main:{FORMATS}")
    while git("show", f"main:{FORMATS}") == before and time.monotonic() < deadline:
        time.sleep(STEP_S)


def write(work: Work, files: Mapping[str, str]) -> None:
    for path, text in files.items():
        say(f"writing {path}")
        Path(path).write_text(text, encoding="utf-8")
    if work.appends:
        before = Path(FORMATS).read_text(encoding="utf-8")
        word = f'"{work.appends}"'
        if word not in before:
            Path(FORMATS).write_text(before.replace("]", f", {word}]"), encoding="utf-8")


def tests_pass() -> bool:
    ran = subprocess.run([sys.executable, "-B", "-m", "unittest", "-q"], check=False)
    return ran.returncode == 0


def commit(work: Work) -> int:
    git("add", "--all")
    if not git("status", "--porcelain"):
        say("there is nothing to change")
        return 0
    git("commit", "--quiet", "--message", f"{work.title}\n\nBy the scripted agent of the demo.")
    say("committed " + git("rev-parse", "--short", "HEAD").strip())
    return 0


def git(*words: str) -> str:
    return subprocess.run(("git", *words), check=True, stdout=subprocess.PIPE, text=True).stdout


def think(seconds: float) -> None:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(STEP_S, left))


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - into stdout.<round>.log of the session


if __name__ == "__main__":
    sys.exit(main())
