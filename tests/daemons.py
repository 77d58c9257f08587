"""A whole root with a person's repository and the real daemon, for tests that need everything."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness import procs, reports, sessionrecord
from harness.clock import SystemClock
from harness.events import read
from harness.layout import STATE_FOLDERS, STORE_FOLDERS, Layout
from harness.procs import ProcessId
from harness.reports import AgentReport, CoordinatorReport
from harness.sessionrecord import SessionRecord
from harness.status import Status, collect
from harness.store.disk import Disk
from harness.store.view import Seen, View
from tests.hubs import person
from tests.support import environment, until

START = """
import gc
gc.disable()  # as the command does while it imports
import sys
from pathlib import Path
from harness.config import load
from harness.coordinator import main
from harness.layout import Layout
layout = Layout(Path(sys.argv[1]))
gc.enable()
timeout = float(sys.argv[3]) if len(sys.argv) > 3 else None
sys.exit(main(layout, load(layout.config, cache=layout.validated), until_idle="idle" in sys.argv[2], timeout_s=timeout))
"""


def git(where: Path, *args: str) -> str:
    """git as a person runs it. Raises CalledProcessError."""
    done = subprocess.run(
        ["git", *args], cwd=where, check=True, capture_output=True, text=True, env=environment()
    )
    return done.stdout.strip()


class Daemon:
    """One root below `base`. Everything started through it is gone after `close`."""

    def __init__(self, base: Path, *, workers: int = 1, **settings: Any) -> None:
        self.app = base / "app"
        self.root = base / "root"
        self.layout = Layout(self.root)
        self.clock = SystemClock()
        self.base = base
        self._started: list[subprocess.Popen[bytes]] = []
        self.code: int | None = None
        """Of the last `run_until_idle`."""
        self._project: dict[str, Any] = {"path": str(self.app), "target": "main", "agent": "shell"}
        self._project |= settings.pop("project", {})
        self.config: dict[str, Any] = {
            "v": 1,
            "workers": workers,
            "durability": "process",
            "projects": {"app": self._project},
            "agents": {"shell": {"adapter": "command", "argv": ["sh", "{prompt_file}"], "prompt": "file"}},
            "health": {"beat_s": 0.2},
            "retry": {"first_delay_s": 0.0, "max_delay_s": 0.0},
            "disk": {"floor_mb": 1, "floor_inodes": 1},
            "intake": {"grace_s": 0.3, "quiet_s": 0.3},
        } | settings
        person(self.app, {"README.md": "hello\n"})  # on a branch of theirs: main is not checked out
        for name in STORE_FOLDERS:
            (self.layout.queue / name).mkdir(mode=0o700, parents=True)
        for name in STATE_FOLDERS:
            (self.layout.state / name).mkdir(parents=True, exist_ok=True)
        self.write_config()

    def write_config(self) -> None:
        self.layout.config.write_text(json.dumps(self.config))  # JSON is YAML

    # ---- driving -----------------------------------------------------------------------------------------------------

    def drop(self, name: str, item: Mapping[str, Any] | list[Any]) -> None:
        """As a program does: written under a hidden name, renamed in."""
        hidden = self.layout.queue / f".{name}.tmp"
        hidden.write_text(json.dumps(item))
        hidden.rename(self.layout.queue / f"{name}.json")

    def start(self, *, idle: bool = False, timeout_s: float | None = None) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-P", "-c", START, str(self.root), "idle" if idle else "-"]
        argv += [str(timeout_s)] if timeout_s else []
        with (self.base / "coordinator.log").open("ab") as log:
            process = subprocess.Popen(
                argv, cwd=self.root, env=environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        self._started.append(process)
        return process

    def run_until_idle(self, timeout_s: float = 60.0) -> int:
        """-> exit code: 0 all done, 1 something is parked."""
        process = self.start(idle=True)
        until(lambda: process.poll() is not None, timeout_s, what=f"idle; {self.tail()}")
        self.code = process.returncode
        return int(process.returncode)

    def tail(self) -> str:
        try:
            return (self.base / "coordinator.log").read_text()[-3000:]
        except OSError:
            return ""

    # ---- looking -----------------------------------------------------------------------------------------------------

    def items(self) -> dict[str, Seen]:
        """id -> item, live and archived."""
        disk = Disk(self.layout, self.clock)
        try:
            view = View(disk)
            found = {s.id: s for s in view.all_live()}
            found |= {s.id: s for day, uid in view.archived() if (s := view.archived_item(uid, day))}
            return found
        finally:
            disk.close()

    def state(self, name: str) -> str:
        seen = self.items().get(name)
        return seen.state.value if seen else ""

    def until_state(self, name: str, *states: str, timeout_s: float = 40.0) -> Seen:
        until(
            lambda: self.state(name) in states,
            timeout_s,
            what=f"{name} {states}; is {self.state(name)}; {self.tail()}",
        )
        return self.items()[name]

    def events(self, kind: str = "") -> list[dict[str, Any]]:
        return [e for _, e in read(self.layout) if not kind or e["event"] == kind]

    def session(self, name: str) -> SessionRecord:
        """What its session's record says, of an item with one session."""
        (path,) = self.layout.sessions.glob(f"*/{self.items()[name].uid}.*/summary.json")
        record = sessionrecord.read(path)
        assert record is not None
        return record

    def report(self, agent: str) -> AgentReport | None:
        return reports.read(reports.agent_path(self.layout, agent), AgentReport)

    def coordinator(self) -> CoordinatorReport | None:
        return reports.read(reports.coordinator_path(self.layout), CoordinatorReport)

    def status(self) -> Status:
        """As `harnessctl status` shows it."""
        return collect(self.layout, self.clock)

    def cli(self, *args: str) -> int:
        """harnessctl, as a person runs it. -> its exit code"""
        argv = [sys.executable, "-P", "-m", "harness", "--root", str(self.root), *args]
        return subprocess.run(argv, cwd=self.base, env=environment(), check=False).returncode

    def running(self, name: str) -> AgentReport | None:
        """The report of the worker whose agent runs this item now."""
        for folder in self.layout.run.glob("agents/*"):
            report = self.report(folder.name)
            if report and report.id == name and report.state == "running":
                return report
        return None

    def until_running(self, name: str, timeout_s: float = 40.0) -> AgentReport:
        return until(lambda: self.running(name), timeout_s, what=f"{name} runs; {self.tail()}")  # type: ignore[return-value]

    def merges(self) -> list[str]:
        """Subjects of the first-parent line of the person's main, oldest first."""
        return git(self.app, "log", "--first-parent", "--reverse", "--format=%s", "main").splitlines()[1:]

    # ---- processes ---------------------------------------------------------------------------------------------------

    def ours(self) -> list[ProcessId]:
        """Every process of this root: named in its command line, or working below its worktrees."""
        found = []
        needle = os.fsencode(str(self.root))
        for pid in procs.pids():
            try:
                line = Path(f"/proc/{pid}/cmdline").read_bytes()
                cwd = os.fsencode(os.readlink(f"/proc/{pid}/cwd"))
            except OSError:
                continue
            who = ProcessId.of(pid)
            if pid != os.getpid() and who and (needle in line or cwd.startswith(needle + b"/state")):
                found.append(who)
        return found

    def kill(self, report: AgentReport, number: int = signal.SIGKILL) -> None:
        who = ProcessId(pid=report.pid, start_ticks=report.start_ticks, boot_id=report.boot_id)
        assert procs.signal(who, number)

    def close(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.wait(10)
        for who in self.ours():
            procs.signal(who, signal.SIGKILL)
        until(lambda: not self.ours(), 20, what="no process of ours is left")


@contextlib.contextmanager
def daemon(base: Path, **settings: Any) -> Iterator[Daemon]:
    made = Daemon(base, **settings)
    try:
        yield made
    finally:
        made.close()
