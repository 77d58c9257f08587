"""A run of a tool as it is seen from outside: what it writes is read while it runs, and once more when it has ended."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from harness.agents.base import (
    Adapter,
    AgentEvent,
    Bounds,
    Final,
    GiveUp,
    LostSession,
    Retrying,
    Stream,
    Text,
    Tool,
    Usage,
)
from harness.agents.outcomes import AgentOutcome, Budget, described
from harness.clock import Clock
from harness.runner import Ended, EndReason
from harness.sessionevents import EventFile
from harness.sessionfolder import SessionFolder, lines
from harness.stream import Growing

RETRY_GRACE_S = 30.0
"""So much longer than it announced may a tool wait before it tries again."""


LOOK_S = 0.2
"""So long a worker hears what a tool says before it looks at everything else again."""
TURN_S = 0.5
"""The same between two beats, when the tool has ended."""
DRAIN_S = 60.0
LAST_BYTES = 1 << 20
"""What is read after that, of each stream."""


class Live:
    """A `runner.Watcher` of one run, for its adapter. What a tool says never makes it raise."""

    def __init__(
        self,
        adapter: Adapter,
        folder: SessionFolder,
        k: int,
        *,
        clock: Clock,
        cost: Callable[[Usage], float | None],
        bounds: Bounds,
        hear: Callable[[AgentEvent], None],
        fresh: bool = False,
    ) -> None:
        """`cost`: in USD, of what was used so far. `hear` hears every event. `fresh`: events were written before, and are again."""
        self._adapter = adapter
        self._clock = clock
        self._cost = cost
        self._bounds = bounds
        self._tell = hear
        self._paths = {Stream.STDOUT: folder.stdout(k), Stream.STDERR: folder.stderr(k)}
        self._growing = {stream: Growing(path) for stream, path in self._paths.items()}
        self._reading: dict[Stream, Iterator[bytes | None]] = {}
        """Of streams that hold more than could be heard in one turn."""
        self._events = EventFile(folder.events(k), clock, fresh=fresh)
        self._patient_s = 0.0
        self._gave_up: AgentOutcome | None = None
        self._passed: Budget | None = None
        self._finished = False
        """It has said its last word, and nothing since: after a summary of what was said, some go on."""
        self.text: str | None = None
        """The tool's last word."""
        self.lost = False
        """It did not know the conversation."""

    def __enter__(self) -> Live:
        return self

    def __exit__(self, *_: object) -> None:
        for growing in self._growing.values():
            growing.close()
        self._events.close()

    def look(self) -> str | None:
        if self._adapter.tail_bytes is None:
            self._read(LOOK_S)
        if not self._finished:  # then it is not stopped any more for what that has cost
            self._gave_up = self._gave_up or self._passed
        return None if self._gave_up is None else described(self._gave_up)

    def patient_s(self) -> float:
        return self._patient_s

    def drain(self, beat: Callable[[], object] = lambda: None) -> None:
        """When it has ended: everything that was not read yet, `beat` being called now and then. What takes longer than
        DRAIN_S is passed over, but for the end."""
        if self._adapter.tail_bytes is None:
            until = self._clock.monotonic() + DRAIN_S
            while not self._read(TURN_S, whole=True):
                beat()
                if self._clock.monotonic() > until:
                    until = math.inf
                    self._reading.clear()
                    for growing in self._growing.values():
                        growing.skip(LAST_BYTES)
            return
        for stream, path in self._paths.items():
            for line in lines(path, self._adapter.tail_bytes):
                self._feed(stream, line)

    def verdict(self, ended: Ended) -> AgentOutcome | None:
        """How it ended, when we stopped it because of what it said."""
        if self._gave_up is None or ended.reason is not EndReason.STOPPED:
            return None
        return self._gave_up if ended.stop_reason == described(self._gave_up) else None

    def _read(self, seconds: float, *, whole: bool = False) -> bool:
        """Hears what is new, for so long at most. -> whether that was all"""
        until = self._clock.monotonic() + seconds
        done = True
        for stream in Stream:  # the journal last: the others say where it is
            if stream not in self._growing and (path := self._adapter.journal()) is not None:
                self._growing[stream] = Growing(path)
            if stream in self._growing:
                try:
                    done &= self._read_stream(stream, until, whole)
                except OSError:
                    if stream is not Stream.JOURNAL:
                        raise
                    # An agent may put anything in its place: then there is none.
        self._events.flush()
        return done

    def _read_stream(self, stream: Stream, until: float, whole: bool) -> bool:
        """At least one piece. What is left over is kept for the next turn."""
        growing = self._growing[stream]
        for again in (False, True):
            reading = self._reading.pop(stream, None) or growing.pieces(whole=whole)
            for line in reading:
                if line is not None:
                    self._feed(stream, line)
                if self._clock.monotonic() >= until:
                    self._reading[stream] = reading
                    return False
            if again or not whole:
                break
        return True

    def _feed(self, stream: Stream, line: bytes) -> None:
        for event in self._adapter.feed(stream, line):
            self._events.add(event)
            self._hear(event)
            self._tell(event)

    def _hear(self, event: AgentEvent) -> None:
        match event:
            case Final(text=said):
                self.text = said
                self._finished = True
            case Text() | Tool():
                self._finished = False
            case LostSession():
                self.lost = True
            case Retrying(delay_s=delay_s):
                self._patient_s = self._clock.monotonic() + delay_s + RETRY_GRACE_S
            case GiveUp(outcome=outcome):
                self._gave_up = self._gave_up or outcome
            case Usage():
                self._count(event)
            case _:
                pass

    def _count(self, usage: Usage) -> None:
        """A tool that cannot be told its budget is stopped when it has passed it: one reply too late."""
        usd, cost = self._bounds.usd, self._cost(usage)
        most, used = self._bounds.tokens, (usage.tokens_in or 0) + (usage.tokens_out or 0)
        if usd is not None and cost is not None and cost > usd:
            self._passed = Budget(detail=f"{cost:.2f} USD of {usd:.2f}")
        elif most is not None and used > most:
            self._passed = Budget(detail=f"{used} tokens of {most}")
