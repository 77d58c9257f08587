"""A tool that meets a usage limit of everybody's: ``limited.py PLACE new|resume CONVERSATION``, for tests and benchmarks.

The limit begins with the start whose number PLACE/at says and lasts as long as PLACE/lasts; where PLACE/tells is, it is
told when it ends. PLACE/starts gets a line for each start: time, item, new or resume, conversation. PLACE/until: its end.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
import uuid
from pathlib import Path
from typing import Any


def agent(place: Path) -> dict[str, Any]:
    """What config.yaml says of it."""
    run = [sys.executable, __file__, str(place)]
    limit = {"match": "usage limit reached", "class": "usage_limit", "retry_after": r"resets in ([\d.]+)"}
    return {
        "adapter": "command",
        "argv": [*run, "new", "-"],
        "resume_argv": [*run, "resume", "{session}"],
        "output": "jsonl",
        "fields": {"session": "session", "text": "text", "cost_usd": "usd"},
        "patterns": [limit],
        "instructions": "text",
    }


def limited(place: Path, *, at: int, lasts_s: float, tells: bool = True) -> None:
    """It meets a limit in its `at`-th start and in all that come in the next seconds."""
    place.mkdir()
    (place / "at").write_text(str(at))
    (place / "lasts").write_text(str(lasts_s))
    if tells:
        (place / "tells").touch()


def starts(place: Path) -> list[list[str]]:
    """(time, item, new or resume, conversation)"""
    return [line.split() for line in (place / "starts").read_text().splitlines()]


def main() -> None:
    place, how, session = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    home, name = Path(os.environ["HOME"]), os.environ["HARNESS_ITEM"]
    until = place / "until"
    with (place / "starts").open("a") as starts:
        fcntl.flock(starts, fcntl.LOCK_EX)
        print(time.time(), name, how, session, file=starts, flush=True)
        if len((place / "starts").read_text().splitlines()) == int((place / "at").read_text()):
            draft = place / "until.new"
            draft.write_text(str(time.time() + float((place / "lasts").read_text())))
            draft.rename(until)
    if how == "new":
        session = str(uuid.uuid4())
        (home / session).write_text(name)
    elif not (home / session).exists():
        sys.exit("no such conversation")
    print(json.dumps({"session": session}), flush=True)
    part = Path(f"{name}.part")
    if how == "new":
        part.write_text("half of it")
    elif part.exists():
        print(json.dumps({"found": part.read_text()}), flush=True)
    left = float(until.read_text()) - time.time() if until.exists() else 0.0
    if left > 0:
        told = f" resets in {left:.3f}" if (place / "tells").exists() else ""
        print(f"usage limit reached{told}", file=sys.stderr)
        sys.exit(1)
    Path(name).write_text(name)
    part.unlink(missing_ok=True)
    print(json.dumps({"text": "done", "usd": 0.25}))


if __name__ == "__main__":
    main()
