"""Where everything is: the one place that spells paths below a root.

`Layout` only computes paths; it touches nothing on disk. `queue/` is described in docs/protocol.md, `state/` in
ARCHITECTURE.md.
"""

from __future__ import annotations

from pathlib import Path

from harness.dataclass import dataclass

PHASES = ("incoming", "waiting", "open", "archive", "rejected", "batches")
STORE_FOLDERS = (*PHASES, "done", "ids", "ready", "tmp")
STATE_FOLDERS = (
    "repos",
    "worktrees",
    "kept",
    "sessions",
    "tmp",
    "control",
    "interrupts",
    "limits",
    "spend",
    "events",
    "logs",
    "run",
    "run/presence",
    "run/agents",
    "run/projects",
)
DROP_SUFFIXES = (".json", ".jsonl", ".yaml", ".yml")


def fan(name: str) -> str:
    """The two-hex-digit folder that spreads `done/` and `ids/` over 256 directories."""
    import hashlib  # here, because `harnessctl status` does without: it costs 3 ms

    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:2]


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths below one root. `root` is absolute and resolved."""

    root: Path

    @property
    def config(self) -> Path:
        return self.root / "config.yaml"

    @property
    def queue(self) -> Path:
        return self.root / "queue"

    @property
    def state(self) -> Path:
        return self.root / "state"

    @property
    def run(self) -> Path:
        """The only part that may be deleted while nothing runs."""
        return self.state / "run"

    @property
    def control(self) -> Path:
        """Touch-files from people: pause, drain, stop, pause.<agent>, priority/<uid>."""
        return self.state / "control"

    @property
    def closed(self) -> tuple[Path, ...]:
        """What no agent may read or write: the queue, what people say to the daemon, what its processes tell each other, and the
        sessions of others, in which a tool may have shown a key. Its own is opened again."""
        return (self.queue, self.control, self.run, self.limits, self.interrupts, self.sessions)

    @property
    def events(self) -> Path:
        return self.state / "events"

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    @property
    def sessions(self) -> Path:
        return self.state / "sessions"

    @property
    def limits(self) -> Path:
        """<credential>.json: what nobody may start on, until when."""
        return self.state / "limits"

    @property
    def spend(self) -> Path:
        """<day>.jsonl: what was reserved and spent."""
        return self.state / "spend"

    @property
    def interrupts(self) -> Path:
        """<name>.json: what waits for a person."""
        return self.state / "interrupts"

    @property
    def tmp(self) -> Path:
        """Temporary files of what runs now, by slot."""
        return self.state / "tmp"

    def scratch(self, slot: str) -> Path:
        return self.tmp / slot

    @property
    def kept(self) -> Path:
        """Worktrees moved aside because they held something unsaved: kept/<uid>.<n>."""
        return self.state / "kept"

    @property
    def presence(self) -> Path:
        return self.run / "presence"

    @property
    def mechanisms(self) -> Path:
        """What this machine offers to contain an attempt, as last tried."""
        return self.run / "mechanisms.json"

    @property
    def validated(self) -> Path:
        """config.yaml as it was validated last."""
        return self.run / "config.json"

    @property
    def coordinator_lock(self) -> Path:
        return self.state / "coordinator.lock"

    def hub(self, project: str) -> Path:
        return self.state / "repos" / f"{project}.git"

    def worktree(self, project: str, slot: str) -> Path:
        return self.state / "worktrees" / project / slot

    def agent(self, name: str) -> Path:
        """run/agents/<name>/: status.json, heartbeat, lock."""
        return self.run / "agents" / name

    def project_status(self, name: str) -> Path:
        return self.run / "projects" / f"{name}.json"

    def submitted(self, project: str) -> Path:
        """Hints for the merger: names of items that wait for their verdict."""
        return self.run / "projects" / f"{project}.submitted"

    def merger_beat(self, project: str) -> Path:
        return self.run / "projects" / f"{project}.beat"

    def merger_lock(self, project: str) -> Path:
        return self.run / "projects" / f"{project}.lock"

    def session(self, day: str, uid: str, n: int) -> Path:
        return self.sessions / day / f"{uid}.{n}"

    def bell(self, name: str) -> Path:
        """The FIFO that wakes `workers`, `coordinator` or `merger.<project>`."""
        return self.run / f"bell.{name}"
