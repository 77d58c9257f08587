"""The demo as a whole: set the scene, start the daemon, drop the plan, kill a worker, watch, prove, tidy up."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rich.console import Console

from harness import events, reports
from harness.clock import parse_rfc3339
from harness.demo import scene as scenes
from harness.demo.board import Board
from harness.demo.daemon import Daemon
from harness.demo.outcome import prove
from harness.demo.scene import Scene
from harness.demo.screen import Screen, console, screen
from harness.demo.summary import summarise
from harness.demo.work import CONCORDANCE, FIRST, PLAN
from harness.errors import TryAgainError
from harness.logs import Event
from harness.reports import AgentReport

LIMIT_S = 170.0
"""Longer than the coordinator gives itself: it ends the run, not we."""
PAUSE_S = 0.08
BREATH_S = 0.7
"""How long the agent may work before its worker is killed."""


def show(workers: int, keep: Path | None) -> int:
    out = console()
    with scenes.stage(keep) as scene, _term_is_ctrl_c():
        scenes.build(scene, workers)
        _introduce(out, scene, workers)
        run = Run(scene, out)
        run.through()
        proof = prove(scene, tuple(PLAN), run.exit_code)
        summarise(out, scene, run.board, proof, run.wall_s, workers, kept=keep is not None)
    return 1 if proof.problems else 0


class Run:
    """The daemon part: from its start to its end. `through` once."""

    def __init__(self, scene: Scene, out: Console) -> None:
        self._scene = scene
        self._out = out
        self._cursor: str | None = None
        self._dropped = False
        self._last = 0.0
        self.board = Board({work.id: work.title for work in PLAN.values()})
        self.began = time.time()
        self.exit_code: int | None = None

    @property
    def wall_s(self) -> float:
        """From the first drop until the last merge was in the person's repository."""
        return max(0.0, self._last - self.began)

    def through(self) -> None:
        """Until the daemon has ended. Whatever happens, nothing of it is left running afterwards."""
        with ExitStack() as ends:
            daemon = Daemon(self._scene)
            ends.callback(daemon.close)
            shown = ends.enter_context(screen(self._out, self.began))
            self.began = time.time()
            scenes.drop_first(self._scene)
            deadline = time.monotonic() + LIMIT_S
            while True:
                self.exit_code = daemon.exit_code()
                self._step(daemon, shown)
                if self.exit_code is not None:
                    return
                if time.monotonic() > deadline:
                    raise TryAgainError("the demo did not end in time", where=self._scene.output)
                time.sleep(PAUSE_S)

    def _step(self, daemon: Daemon, shown: Screen) -> None:
        self._listen()
        self._drop_rest()
        self._kill(daemon)
        shown.show(self.board)

    def _listen(self) -> None:
        for cursor, record in events.read(self._scene.layout, self._cursor):
            self._cursor = cursor
            self.board.hear(record)
            if record.get("event") in (Event.ITEM_MERGED, Event.TARGET_PUBLISHED):
                self._last = parse_rfc3339(str(record["ts"]))
        self.board.see(self._reports())

    def _reports(self) -> Iterator[AgentReport]:
        for path in self._scene.layout.run.glob("agents/*/status.json"):
            if report := reports.read(path, AgentReport):
                yield report

    def _drop_rest(self) -> None:
        """The first items must have begun: they are to be overtaken by the others."""
        if not self._dropped and all(work.id in self.board.started for work in FIRST):
            self._dropped = True
            scenes.drop_rest(self._scene)

    def _kill(self, daemon: Daemon) -> None:
        """One worker, while its agent is in the middle of an item."""
        begun = self.board.started.get(CONCORDANCE.id)
        if self.board.kill or begun is None or time.time() < begun + BREATH_S:
            return
        worker = daemon.worker_of(self.board.uids[CONCORDANCE.id])
        if worker is not None and worker.attempt == 1 and daemon.kill(worker):
            self.board.note_kill(worker, time.time())


def _introduce(out: Console, scene: Scene, workers: int) -> None:
    out.print(f"A repository          {scene.repository}")
    out.print(f"a harness root        {scene.layout.root}")
    out.print(
        f"{len(PLAN)} items, workers: {workers}, one scripted agent; one worker will be killed on purpose."
    )
    out.print()


@contextmanager
def _term_is_ctrl_c() -> Iterator[None]:
    """A TERM (a CI job that is cancelled) cleans up as Ctrl-C does."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
