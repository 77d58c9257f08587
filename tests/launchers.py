"""A launcher whose processes exist only in the test: they end when, and as, the test says."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field

from harness.errors import HarnessError
from harness.launcher import Life, LocalHandle, Seen
from harness.procs import ProcessId


@dataclass
class FakeLauncher:
    """`ended`: pid -> how. `sent`: (name, signal), in order."""

    spawned: list[tuple[str, str]] = field(default_factory=list)
    adopted: list[str] = field(default_factory=list)
    broken: bool = False
    ended: dict[int, Seen] = field(default_factory=dict)
    sent: list[tuple[str, int]] = field(default_factory=list)

    def spawn(self, role: str, name: str, *arguments: str) -> LocalHandle:
        if self.broken:
            raise HarnessError(f"cannot start {role} {name}: Resource temporarily unavailable")
        self.spawned.append((role, name))
        process = ProcessId(pid=4_100_000 + len(self.spawned), start_ticks=7, boot_id="b")
        return LocalHandle(role, name, process, None, None, foreign=False)

    def adopt(self, role: str, name: str, process: ProcessId, *, host: str = "") -> LocalHandle:
        self.adopted.append(name)
        return LocalHandle(role, name, process, None, None, foreign=False)

    def poll(self, handle: LocalHandle) -> Seen:
        assert handle.process is not None
        return self.ended.get(handle.process.pid, Seen(life=Life.RUNNING))

    def stop(self, handle: LocalHandle, number: int = signal.SIGTERM) -> bool:
        self.sent.append((handle.name, number))
        return True

    def end(self, handle: LocalHandle | None, *, exit_code: int | None = None, by: int | None = None) -> None:
        """The process is gone; without exit code and signal: nobody knows how."""
        assert handle is not None
        assert handle.process is not None
        self.ended[handle.process.pid] = Seen(life=Life.GONE, exit_code=exit_code, signal=by)
