"""What a drop costs the coordinator, from its take to its answer: the most expensive kinds that are known."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from benchmarks.tables import Row
from tests.unit.test_drops_fuzz import CAP, COSTLY, LIMIT_S, MANY, Box, cpu_s, yard

ROUNDS = 5


def rows(_where: Path, quick: bool) -> list[Row]:
    """CPU time of one process, the median of some rounds, on a memory file system if there is one."""
    memory = Path("/dev/shm")
    costs: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        box = Box(Path(folder))
        for _ in range(1 if quick else ROUNDS):
            for name, (suffix, raw) in COSTLY.items():
                box.world.drop(f"costly{suffix}", raw)
                said, spent_s = cpu_s(box.admit)
                if len(said.items) < MANY:
                    costs.setdefault(name, []).append(spent_s)
        box.world.close()
    worst = sorted(((statistics.median(spent), name) for name, spent in costs.items()), reverse=True)
    shown = ", ".join(f"{name} {spent * 1000:.0f} ms" for spent, name in worst[:3])
    yards = statistics.median(cpu_s(yard)[1] for _ in range(20))
    return [
        Row(
            check=f"any drop of up to {CAP >> 20} MiB, CPU until it is answered: the worst of {len(costs)} kinds",
            wanted=f"< {LIMIT_S * 1000:.0f} ms",
            measured=f"{shown} (the tests' yard: {yards * 1000:.1f} ms)",
            reached=worst[0][0] < LIMIT_S,
        )
    ]
