"""A root with a repository of its own and the real daemon in it. Whatever happens, nothing of it is left running.

Works only through what every user has: files that are dropped, `harnessctl run`, signals, the event stream, /proc. It
knows the names of a few files below `state/run/`, and imports nothing of the product.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.events import Events

CHECKOUT = Path(__file__).resolve().parent.parent
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Process:
    """A process of the fleet, as /proc shows it. `born` tells it from a later one with the same pid."""

    pid: int
    born: int
    role: str
    """coordinator, agent-1, merger.app, or "" for anything else."""
    parent: int = field(default=0, compare=False)

    def alive(self) -> bool:
        return (seen := _stat(self.pid)) is not None and seen[1] == self.born and seen[0] not in "ZX"

    def kill(self, number: int = signal.SIGKILL) -> bool:
        """By pidfd, compared after it was opened: never somebody else's process."""
        try:
            fd = os.pidfd_open(self.pid)
        except OSError:
            return False
        try:
            if not self.alive():
                return False
            signal.pidfd_send_signal(fd, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(fd)
        return True

    def cpu_s(self) -> float:
        """CPU seconds of it and of the children it has waited for."""
        seen = _stat(self.pid)
        return seen[2] if seen and seen[1] == self.born else 0.0

    def memory_mb(self) -> tuple[float, float]:
        """(resident, proportional share) in MB of 2**20 bytes; a page that n processes share counts 1/n in the second."""
        rss = pss = 0.0
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Rss:"):
                    rss = int(line.split()[1]) / 1024
                elif line.startswith("Pss:"):
                    pss = int(line.split()[1]) / 1024
        return rss, pss


def _stat(pid: int) -> tuple[str, int, float, int] | None:
    """(state, start time, CPU seconds, parent)"""
    try:
        rest = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return rest[0], int(rest[19]), sum(int(x) for x in rest[11:15]) * TICK_S, int(rest[1])


class Fleet:
    """One root below a new folder in `where`. Use as a context."""

    def __init__(
        self,
        where: Path,
        *,
        workers: int = 3,
        files: int = 500,
        durability: str = "power",
        gates: int = 1,
        project: Mapping[str, Any] | None = None,
        failpoint: str = "",
        **settings: Any,
    ) -> None:
        self.failpoint = failpoint
        where.mkdir(parents=True, exist_ok=True)
        self.base = Path(tempfile.mkdtemp(prefix="harness-bench.", dir=where))
        self.app, self.root = self.base / "app", self.base / "root"
        self.queue, self.state = self.root / "queue", self.root / "state"
        self.events = Events(self.state / "events")
        self._started: list[subprocess.Popen[bytes]] = []
        self.ended: list[int] = []
        """Exit codes of coordinators; -9: killed."""
        self._make_repository(files)
        for folder in (self.root, self.queue, self.state, self.state / "events"):
            folder.mkdir()
        self.config: dict[str, Any] = {
            "v": 1,
            "workers": workers,
            "durability": durability,
            "projects": {
                "app": {
                    "path": str(self.app),
                    "agent": "shell",
                    "gates": [{"name": "tests", "run": "test -e README.md"}] * gates,
                }
                | dict(project or {})
            },
            "agents": {"shell": {"adapter": "command", "argv": ["sh", "{prompt_file}"], "prompt": "file"}},
            "disk": {"floor_mb": 1, "floor_inodes": 1},
        } | settings
        # JSON is YAML
        lines = [f"{key}: {json.dumps(value)}\n" for key, value in self.config.items()]
        (self.root / "config.yaml").write_text("".join(lines))

    def _make_repository(self, files: int) -> None:
        self.app.mkdir()
        git(self.app, "init", "-q", "-b", "main")
        (self.app / "README.md").write_text("A repository to measure with.\n")
        for k in range(files - 1):
            folder = self.app / f"package{k // 25:02d}"
            folder.mkdir(exist_ok=True)
            (folder / f"module{k:03d}.py").write_text(f'"""Module {k}."""\n' + f"VALUE = {k}\n" * 60)
        git(self.app, "add", ".")
        git(
            self.app,
            "-c",
            "user.name=bench",
            "-c",
            "user.email=bench@example.org",
            "commit",
            "-q",
            "-m",
            "first",
        )
        git(self.app, "switch", "-q", "-c", "work")  # main is not checked out, so it may be pushed to

    @property
    def hub(self) -> Path:
        return self.state / "repos" / "app.git"

    # ---- driving ---------------------------------------------------------------------------------------------------

    def start(self, *options: str, wait_for: int | None = None) -> Process:
        """Start the coordinator; returns when it and its workers are idle (`wait_for` workers, default all)."""
        with (self.base / "coordinator.log").open("ab") as log:
            child = subprocess.Popen(
                [sys.executable, "-P", "-m", "harness", "run", "--root", str(self.root), *options],
                cwd=self.root,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._started.append(child)
        wanted = self.config["workers"] if wait_for is None else wait_for
        if wanted:
            self.until(
                lambda: self._idle_workers() >= wanted or child.poll() is not None, 60, "the workers are idle"
            )
            if child.poll() is not None:
                raise RuntimeError(f"the coordinator ended with exit code {child.returncode}\n{self.log()}")
        seen = _stat(child.pid)
        return Process(child.pid, seen[1] if seen else 0, "coordinator")

    def environment(self) -> dict[str, str]:
        """Of the daemon and of people's commands."""
        return environment() | ({"HARNESS_FAILPOINTS": self.failpoint} if self.failpoint else {})

    def _idle_workers(self) -> int:
        return sum(r.get("state") in ("idle", "paused") and self._lives(r) for r in self.reports().values())

    def _lives(self, report: Mapping[str, Any]) -> bool:
        seen = _stat(int(report["pid"]))
        return seen is not None and seen[1] == report.get("start_ticks") and seen[0] not in "ZX"

    def drop(
        self, name: str, item: Mapping[str, Any] | list[dict[str, Any]], *, durable: bool = False
    ) -> float:
        """As a program does: written under a hidden name, renamed in. -> the time of the rename."""
        hidden = self.queue / f".{name}.tmp"
        hidden.write_text(json.dumps(item))
        if durable:
            _fsync(hidden)
        public = self.queue / f"{name}.json"
        now = time.time()
        hidden.rename(public)
        if durable:
            _fsync(self.queue)
        return now

    def started(self) -> bool:
        """Does a coordinator of ours run? Also reaps the dead ones."""
        self.ended += [code for child in self._started if (code := child.poll()) is not None]
        self._started = [child for child in self._started if child.returncode is None]
        return bool(self._started)

    def _ticks(self) -> bool:
        """Has the coordinator that was started last said that it runs?"""
        try:
            report = json.loads((self.state / "run" / "coordinator.json").read_bytes())
        except (OSError, ValueError):
            return False
        return bool(report["pid"] == self._started[-1].pid and report["state"] == "running")

    def stop(self) -> None:
        """Drain, then wait until nothing of the fleet runs."""
        if self.started():  # TERM in the first moments of its life would end it as it ends any program
            self.until(self._ticks, 60, "the coordinator ticks")
        for child in self._started:
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)
        self.until(lambda: not self.coordinators(), 120, "the coordinator is gone")
        for child in self._started:
            child.wait(10)

    def finish(self) -> None:
        """Stop for good. A lock that a killed git left in the hub may stay until the next start, and no longer: when
        there is one, the coordinator is started once more, and `check` finds those that are there even then."""
        self.stop()
        if not self.git_locks():
            return
        self.start(wait_for=0)
        with contextlib.suppress(TimeoutError):
            self.until(lambda: not self.git_locks(), 30, "the coordinator has swept the hub")
        self.stop()

    # ---- looking -----------------------------------------------------------------------------------------------------

    def git_locks(self) -> list[Path]:
        """Lock files of git in the hub."""
        return sorted(self.hub.rglob("*.lock"))

    def reports(self) -> dict[str, dict[str, Any]]:
        """What the workers say of themselves."""
        found = {}
        for path in self.state.glob("run/agents/*/status.json"):
            with contextlib.suppress(OSError, ValueError):
                found[path.parent.name] = json.loads(path.read_bytes())
        return found

    def processes(self) -> list[Process]:
        """Every process that names this root in its command line or works below it, ourselves excepted."""
        found = []
        root, state = os.fsencode(self.root), os.fsencode(self.state)
        for name in os.listdir("/proc"):
            if not name.isdecimal() or int(name) == os.getpid():
                continue
            try:
                line = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
                cwd = os.fsencode(os.readlink(f"/proc/{name}/cwd"))
            except OSError:
                continue
            if not any(root in word for word in line) and not cwd.startswith(state):
                continue
            seen = _stat(int(name))
            if seen and seen[0] not in "ZX":
                found.append(Process(int(name), seen[1], _role(line), seen[3]))
        return found

    def roles(self, prefix: str) -> list[Process]:
        """Without their children, which look like them until they exec."""
        found = [p for p in self.processes() if p.role.startswith(prefix)]
        pids = {p.pid for p in found}
        return [p for p in found if p.parent not in pids]

    def coordinators(self) -> list[Process]:
        return self.roles("coordinator")

    def worker(self, slot: str) -> Process | None:
        return next(iter(self.roles(slot)), None)

    def finished(self) -> int:
        """Items that are archived or rejected."""
        folders = [*self.queue.glob("archive/*/"), *self.queue.glob("rejected/")]
        return sum(len(os.listdir(folder)) for folder in folders)

    def log(self) -> str:
        """The end of what the coordinator printed."""
        with contextlib.suppress(OSError):
            return (self.base / "coordinator.log").read_text(errors="replace")[-4000:]
        return ""

    def until(
        self, predicate: Callable[[], object], timeout_s: float, what: str, pause_s: float = 0.01
    ) -> None:
        deadline = time.monotonic() + timeout_s
        while not predicate():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {timeout_s:g} s: {what}\n{self.log()}")
            time.sleep(pause_s)

    # ---- the end -----------------------------------------------------------------------------------------------------

    def kill_all(self) -> int:
        """kill -9 whatever there is, until there is nothing. -> how many there were at first."""
        first = len(self.processes())
        deadline = time.monotonic() + 30
        while found := self.processes():
            if time.monotonic() > deadline:
                raise TimeoutError(f"does not die: {found}")
            for process in found:
                process.kill()
            self.started()
            time.sleep(0.01)
        for child in self._started:
            child.wait(10)
        return first

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, kind: object, value: object, trace: object) -> None:
        self.kill_all()
        self.events.close()
        if kind is not None or os.environ.get("BENCH_KEEP"):
            print(f"  kept: {self.base}", file=sys.stderr)
        else:
            shutil.rmtree(self.base, ignore_errors=True)


def _fsync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _role(line: list[bytes]) -> str:
    words = [w.decode(errors="replace") for w in line]
    if "harness" not in words:
        return ""
    if "--agent" in words:
        return words[words.index("--agent") + 1]
    return "coordinator" if "run" in words else ""


def git(where: Path, *args: str, check: bool = True) -> str:
    """git as a person runs it, with nobody's settings."""
    done = subprocess.run(
        ["git", *args], cwd=where, check=check, capture_output=True, text=True, env=environment()
    )
    return done.stdout.strip()


def environment() -> dict[str, str]:
    """Ours, without what would make the daemon another one than anybody else's."""
    env = {
        k: v
        for k, v in os.environ.items()
        if k not in ("PYTHONDONTWRITEBYTECODE", "NOTIFY_SOCKET") and not k.startswith(("HARNESS_", "GIT_"))
    }
    env["PYTHONPATH"] = str(CHECKOUT)
    env |= {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull}
    return env
