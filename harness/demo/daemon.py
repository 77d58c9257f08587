"""The demo's daemon: started as a person starts it, one worker killed on purpose, and nothing of it left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from harness import procs, reports
from harness.demo.scene import Scene
from harness.errors import HarnessError
from harness.procs import ProcessId
from harness.reap import reap
from harness.reports import AgentReport

LIMIT_S = 150.0
"""The coordinator ends itself then, also when we are gone."""
AGAIN_S = 0.3
STOP_S = 15.0
MARK = "HARNESS_DEMO"


class Daemon:
    """A coordinator with its workers, as one thing that is ended with `close`."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        root = str(scene.layout.root)
        argv = [sys.executable, "-P", "-m", "harness", "--root", root, "run", "--until-idle"]
        # Without that setting, which some shells have, starting Python takes several times as long.
        ours = {
            k: v
            for k, v in os.environ.items()
            if not k.startswith("HARNESS_") and k != "PYTHONDONTWRITEBYTECODE"
        }
        with scene.output.open("wb") as output:
            self._process = subprocess.Popen(
                [*argv, "--timeout", str(LIMIT_S)],
                cwd=scene.layout.root,
                env=ours | {"TMPDIR": str(scene.tmp), MARK: str(scene.folder)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is for us; we end it in order
            )

    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def worker_of(self, uid: str) -> AgentReport | None:
        """The worker whose agent works on an item right now."""
        for path in self._scene.layout.run.glob("agents/*/status.json"):
            report = reports.read(path, AgentReport)
            if report and report.item == uid and report.state == "running":
                return report
        return None

    def kill(self, worker: AgentReport) -> bool:
        """kill -9, by pidfd: exactly the process that wrote the report, or nothing."""
        return procs.signal(reports.process_of(worker), signal.SIGKILL)

    def close(self) -> None:
        """Drain, stop, kill: whatever is left of the daemon is gone afterwards. Idempotent."""
        for number, wait_s in ((signal.SIGTERM, AGAIN_S), (signal.SIGTERM, STOP_S), (signal.SIGKILL, STOP_S)):
            if self._process.poll() is None:
                self._process.send_signal(number)
                self._wait(wait_s)
        if left(self._scene):
            try:
                reap(self._scene.layout, grace_s=2.0)
            except HarnessError:
                for one in left(self._scene):
                    procs.signal(one, signal.SIGKILL)

    def _wait(self, timeout_s: float) -> None:
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return


def left(scene: Scene) -> list[ProcessId]:
    """Living processes of this scene: by what the daemon and its agents have in their environment, and by where they
    work. A shell that a person has open in the folder is not one of them."""
    folder = os.fsencode(scene.folder)
    marks = (MARK.encode() + b"=" + folder + b"\0", b"HARNESS_WORKTREE=" + folder + b"/")
    found = []
    for pid in procs.pids():
        one = ProcessId.of(pid)
        environ = procs.read(pid, "environ") or b""
        if one and one.alive() and (any(m in environ for m in marks) or _works_in(pid, scene.layout.state)):
            found.append(one)
    return found


def gone(scene: Scene, timeout_s: float = 5.0) -> bool:
    """Whether nothing is left; what is about to end has a moment to do so."""
    deadline = time.monotonic() + timeout_s
    while left(scene):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _works_in(pid: int, folder: Path) -> bool:
    try:
        return Path(os.readlink(f"/proc/{pid}/cwd")).is_relative_to(folder)
    except OSError:
        return False
