"""Numbers as people read them: percentiles and Markdown tables."""

from __future__ import annotations

import math
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


def percentile(values: Sequence[float], per_cent: float) -> float:
    """The smallest value that at least so many per cent of the values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(per_cent / 100 * len(ordered)) - 1)]


def ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of a table: what was measured, what was wanted, what came out."""

    check: str
    wanted: str
    measured: str
    reached: bool | None
    """None: there is no wanted figure, or it could not be measured here."""


def table(rows: Sequence[Row]) -> str:
    words = {True: "yes", False: "**no**", None: "–"}
    lines = ["| check | wanted | measured | reached |", "|---|---|---|---|"]
    lines += [f"| {r.check} | {r.wanted} | {r.measured} | {words[r.reached]} |" for r in rows]
    return "\n".join(lines)


def machine(folder: Path) -> str:
    """Where the figures were taken: processor, memory, kernel, file system, Python, git."""
    cpu = next(
        (x.split(":", 1)[1].strip() for x in _lines("/proc/cpuinfo") if x.startswith("model name")), "?"
    )
    memory = next((int(x.split()[1]) for x in _lines("/proc/meminfo") if x.startswith("MemTotal")), 0)
    git = subprocess.run(["git", "--version"], capture_output=True, text=True, check=True).stdout.split()[-1]
    load = ", ".join(f"{x:.1f}" for x in os.getloadavg())
    return (
        f"{os.cpu_count()} cores ({cpu}), {memory / (1 << 20):.1f} GiB, Linux {platform.release()}, "
        f"{file_system(folder)}, Python {platform.python_version()}, git {git}, "
        f"{'root' if os.geteuid() == 0 else 'an ordinary user'}; load average at the start: {load}"
    )


def file_system(folder: Path) -> str:
    """The type of the file system that holds a folder, by the longest mount point above it."""
    real = os.path.realpath(folder)
    best, kind = "", "?"
    for line in _lines("/proc/mounts"):
        _, point, found, *_ = line.split()
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, found
    return kind


def note(text: str) -> None:
    """Progress, for the person who waits."""
    print(f"  {text}", file=sys.stderr, flush=True)


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
