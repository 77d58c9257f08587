"""A fake agent: says what was recorded of a real one, with pauses, does something to the worktree, and misbehaves on request.

Run as a program, by an adapter that takes it for its tool: what it is to do stands in the environment, as one JSON object in
REPLAY (a list of them: one for each start, counted in HOME; the last one again to all that follow):

    recording   a file of tests/data/agents: lines of stdout, then {"_trailer": {exit, stderr}}
    replace     [[old, new], ...] in every line; NOW+n in `new` becomes that moment, in seconds since the epoch
    pause_s     before each line
    shell       run in the worktree before the last line
    hang        after the last line, nothing more happens
    deaf        names of signals that it ignores
    orphan      leave a process in a session of its own that ignores everything
    flood       [bytes, seconds]: so much more, in lines of 1 KiB, before the recording's last line
    long        bytes of one line more
    exit        instead of the recorded exit code
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BEAT_S = 0.05


def installed(folder: Path) -> str:
    """Its path as a program, for `binary` of an agent. For tests."""
    program = folder / "agent"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -P {__file__} "$@"\n')
    program.chmod(0o755)
    return str(program)


def orders() -> dict[str, Any]:
    """What this start is to do."""
    asked = json.loads(os.environ["REPLAY"])
    if isinstance(asked, dict):
        return asked
    counter = Path(os.environ["HOME"]) / "starts"
    number = int(counter.read_text()) if counter.exists() else 0
    counter.write_text(str(number + 1))
    return dict(asked[min(number, len(asked) - 1)])


def recorded(path: Path, replace: list[list[str]]) -> tuple[list[str], dict[str, Any]]:
    """-> (lines of stdout, the trailer)"""
    *said, last = path.read_text().splitlines()
    out = []
    for text in said:
        line = text
        for old, new in replace:
            line = line.replace(old, re.sub(r"NOW\+(\d+)", lambda m: str(int(time.time()) + int(m[1])), new))
        out.append(line)
    return out, json.loads(last)["_trailer"]


def flood(size: int, seconds: float) -> Iterator[str]:
    """Lines of a tool's output, as evenly as a pipe allows."""
    text = "x" * 900
    line = json.dumps({"type": "user", "message": {"content": [{"type": "tool_result", "content": text}]}})
    number = max(1, size // (len(line) + 1))
    began = time.monotonic()
    for k in range(number):
        due = began + seconds * k / number
        if due - time.monotonic() > BEAT_S:
            time.sleep(due - time.monotonic())
        yield line


def put(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    todo = orders()
    for name in todo.get("deaf", ()):
        signal.signal(signal.Signals[f"SIG{name}"], signal.SIG_IGN)
    if todo.get("orphan"):
        subprocess.Popen(
            ["sh", "-c", "trap '' INT TERM HUP; while :; do sleep 100; done"],
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={"PATH": os.environ["PATH"]},
        )
    lines, trailer = recorded(Path(todo["recording"]), todo.get("replace", []))

    def say(line: str) -> None:
        time.sleep(todo.get("pause_s", 0.0))
        put(line)

    for line in lines[:-1]:
        say(line)
    for line in trailer.get("stderr", ()):
        sys.stderr.write(f"{line}\n")
    if todo.get("long"):
        say(json.dumps({"type": "unknown", "text": "x" * int(todo["long"])}))
    if todo.get("flood"):
        for line in flood(*todo["flood"]):
            put(line)
    if todo.get("shell"):
        subprocess.run(["sh", "-ec", todo["shell"]], check=True, stdout=subprocess.DEVNULL)
    for line in lines[-1:]:
        say(line)
    while todo.get("hang"):
        time.sleep(BEAT_S)
    return int(todo.get("exit", trailer["exit"])) & 0xFF


if __name__ == "__main__":
    sys.exit(main())
