"""What containment costs and how fast it acts: a table for each kind. Run: python -P benchmarks/containment.py [RUNS]"""

from __future__ import annotations

import fcntl
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, os.fspath(Path(__file__).resolve().parent.parent))

from harness.clock import SystemClock
from harness.config import Sandbox
from harness.containment import Containment, Jail, Kind, Policy
from harness.errors import ConfigError
from harness.runner import Command, Runner

ENV = {"PATH": os.environ.get("PATH", os.defpath)}
MARK = f"bench-{os.getpid()}.1"

WORKER = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from harness.clock import SystemClock
from harness.config import Sandbox
from harness.containment import Containment, Jail, Kind
from harness.runner import Command, Runner
found = Containment.probe(Sandbox.NONE, only=Kind(sys.argv[2]))
Runner(clock=SystemClock(), containment=found).run(
    Command(argv=sys.argv[4:], cwd=Path("/"), env={"PATH": "/usr/bin:/bin"}, jail=Jail(mark=sys.argv[3])))
"""

AGENT = """
import fcntl, os, signal, sys
if os.fork():
    signal.pause()
os.setsid()
f = open(sys.argv[1], "w")
fcntl.flock(f, fcntl.LOCK_EX)
open(sys.argv[1] + ".ready", "w").close()
while True:
    signal.pause()
"""


def timed(call: Callable[[], object], runs: int) -> list[float]:
    taken = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        taken.append((time.perf_counter() - start) * 1000)
    return sorted(taken)


def row(name: str, taken: list[float]) -> None:
    last = len(taken) - 1
    print(
        f"| {name} | {taken[last // 2]:.2f} | {taken[last * 9 // 10]:.2f} | {taken[last * 99 // 100]:.2f} |"
    )


def killed_worker(kind: Kind, folder: Path) -> float:
    """Milliseconds from SIGKILL of the worker to the death of a descendant that has left the session."""
    lock, root = folder / "lock", os.fspath(Path(__file__).resolve().parent.parent)
    ready = folder / "lock.ready"
    ready.unlink(missing_ok=True)
    argv = [sys.executable, "-P", "-c", WORKER, root, kind, MARK, sys.executable, "-c", AGENT, str(lock)]
    worker = subprocess.Popen(argv)
    while not ready.exists():
        time.sleep(0.001)
    with lock.open("w") as f:
        start = time.perf_counter()
        os.kill(worker.pid, signal.SIGKILL)
        fcntl.flock(f, fcntl.LOCK_EX)  # granted by the death of its holder
        taken = (time.perf_counter() - start) * 1000
    worker.wait()
    Containment().kill(MARK)
    return taken


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    everything = Containment.probe()
    print(
        f"{platform.platform()}, {os.cpu_count()} cores; {', '.join(everything.kinds)}, {everything.sandbox}\n"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        policy = Policy(write=(folder,), hide=(folder.parent / "hidden", Path.home() / ".ssh"))
        print("| `true`, ms | p50 | p90 | p99 |\n|---|---|---|---|")
        row("subprocess.run", timed(lambda: subprocess.run(["true"], env=ENV, check=True), runs))
        plain = Runner(clock=SystemClock(), containment=Containment())
        row("runner, no jail", timed(lambda: plain.run(Command(argv=["true"], cwd=folder, env=ENV)), runs))
        for kind in (None, *Kind):
            for sandbox in (Sandbox.NONE, Sandbox.LANDLOCK, Sandbox.BWRAP):
                try:
                    found = Containment.probe(sandbox, only=kind)
                except ConfigError:
                    continue
                if kind is not None and found.kind is not kind:
                    continue
                jail = Jail(mark=MARK, policy=policy)
                runner = Runner(clock=SystemClock(), containment=found)
                command = Command(argv=["true"], cwd=folder, env=ENV, jail=jail)
                label = "jailed: " + (kind or " + ".join(found.kinds))
                row(f"{label}, sandbox {sandbox}", timed(lambda r=runner, c=command: r.run(c), runs))  # type: ignore[misc]
        row("probe", timed(Containment.probe, 10))
        row("kill of an attempt that has ended", timed(lambda: everything.kill(MARK), runs))
        print(
            "\n| SIGKILL of a worker to the death of its agent's last process, ms | p50 | p90 | p99 |\n|---|---|---|---|"
        )
        for kind in Kind:
            if kind in everything.kinds:
                row(kind, sorted(killed_worker(kind, folder) for _ in range(runs)))


if __name__ == "__main__":
    main()
