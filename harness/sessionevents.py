"""events.<k>.jsonl of a session: what a run said, in the words of `agents.base`, with the time when it was read.

One JSON object a line: ``t`` (wall clock, seconds), ``kind``, and the event's own fields. For people and programs
(`harnessctl session`); nothing is decided by it. Bounded: long texts are cut, signs of life are left out.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from harness import redact
from harness.agents.base import Activity, AgentEvent, GiveUp, Usage
from harness.agents.jsonl import parsed
from harness.agents.outcomes import described
from harness.clock import Clock
from harness.stream import Growing

MAX_BYTES = 64 << 20
"""Of one run. What is said later is in the raw stream only."""
MAX_TEXT = 4000
_WORDS = re.compile(r"(?<!^)(?=[A-Z])")


class EventFile:
    """Appends; `fresh`: begins again. Errors of the disk are left to those who write what matters."""

    def __init__(self, path: Path, clock: Clock, *, fresh: bool = False) -> None:
        self._path = path
        self._clock = clock
        self._flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._flags |= os.O_TRUNC if fresh else 0
        self._fd: int | None = None
        self._pending = bytearray()
        self._written = 0
        self._turns: int | None = None

    def add(self, event: AgentEvent) -> None:
        """One event; of usage only what is new with each turn."""
        if isinstance(event, Activity) or self._written > MAX_BYTES:
            return
        if isinstance(event, Usage):
            if event.turns is not None and event.turns == self._turns:
                return
            self._turns = event.turns
        said: dict[str, Any] = {"t": round(self._clock.wall(), 3), "kind": kind_of(event)}
        if isinstance(event, GiveUp):
            said["outcome"] = redact.redact(described(event.outcome))
        else:
            for one in fields(event):
                value = getattr(event, one.name)
                if value is not None and value != "":
                    said["what" if one.name == "kind" else one.name] = redact.plain(value, MAX_TEXT)
        self._pending += json.dumps(said).encode() + b"\n"
        if len(self._pending) > 256 << 10:
            self.flush()

    def flush(self) -> None:
        """What was added is in the file afterwards, unless the disk does not take it."""
        if not self._pending:
            return
        data, self._pending = bytes(self._pending), bytearray()
        try:
            if self._fd is None:
                self._fd = os.open(self._path, self._flags, 0o600)
            self._written += os.write(self._fd, data)
        except OSError:
            self._written = MAX_BYTES + 1

    def close(self) -> None:
        self.flush()
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def kind_of(event: AgentEvent) -> str:
    """``LostSession`` -> ``lost_session``"""
    return _WORDS.sub("_", type(event).__name__).lower()


def read(path: Path) -> Iterator[dict[str, Any]]:
    """What was said, in order; lines that are none are passed over. No file, or something else in its place: nothing."""
    growing = Growing(path)
    try:
        for line in growing.lines(whole=True):
            if (said := parsed(line)) is not None:
                yield dict(said)
    except OSError:
        return
    finally:
        growing.close()
