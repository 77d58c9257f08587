"""Runs the long proofs, keeps what each printed in docs/proof/, and writes the table of docs/reliability.md.

./scripts/prove [PART...] [--quick]
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.tables import machine

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "docs" / "proof"
PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- prove: begin -->", "<!-- prove: end -->"


@dataclass(frozen=True, slots=True)
class Part:
    """One proof: a command, and the line of what it prints that says the result."""

    name: str
    what: str
    command: tuple[str, ...]
    quick: tuple[str, ...]
    """Further arguments that make it short, to see that it works."""
    said: str
    """A regular expression for that line; the last match counts."""
    environ: Mapping[str, str] = field(default_factory=dict)
    """Not when it is to be quick."""


PYTHON = (sys.executable, "-P", "-B", "-m")
FAULTS = ("tests/races/test_faults.py", "tests/integration/test_hub_faults.py")
PARTS = (
    Part(
        "explore",
        "every interleaving of the store's generators, kills, power losses, wrong suspicions, lost replies, torn listings",
        (*PYTHON, "tests.model", "--seconds", "150"),
        ("--seconds", "2"),
        r"\d+ scenarios, .*",
    ),
    Part(
        "mutants",
        "rules broken on purpose: the explorer must see each that does damage",
        (*PYTHON, "tests.model.mutants"),
        (),
        r"\d+ mutants.*|.*\d+ of \d+.*",
    ),
    Part(
        "faults",
        "every system call of a day of the store, and of git's in the hub, × {ENOSPC, EIO, EROFS, EMLINK, EACCES, EMFILE, kill}",
        (*PYTHON, "pytest", "-q", "--tb=short", "-rP", "-n", "4", *FAULTS),
        (),
        r"\d+ (?:passed|failed).*",
        {"HARNESS_FAULTS": "all"},
    ),
    Part(
        "contention",
        "ten processes at the link(2) of one item's claim, at the same moment",
        (*PYTHON, "benchmarks.contention", "--races", "1000000"),
        ("--races", "5000"),
        r"[\d,]+ races of .*",
    ),
    Part(
        "storm",
        "the real daemon: workers, coordinators and mergers killed and stopped while items run",
        (
            *(*PYTHON, "benchmarks.storm", "--items", "5000", "--kills", "5000", "--stops", "1000"),
            *("--gap", "0.3", "--workers", "6", "--aim", "8,1,1"),
        ),
        ("--items", "40", "--kills", "40", "--stops", "10"),
        r"storm: .*",
    ),
    Part(
        "failpoints",
        "mistakes in the daemon on purpose: a storm or power losses must find each",
        (*PYTHON, "benchmarks.failpoints"),
        ("takes-by-copying",),
        r"\d+ of \d+ failpoints.*",
    ),
    Part(
        "sick",
        "a disk that is full, out of inodes, or read-only in the middle of a run, and heals",
        (*PYTHON, "benchmarks.sick", "--rounds", "10"),
        ("--rounds", "1"),
        r"a disk that was .*",
    ),
    Part(
        "power",
        "power losses of a real file system in the middle of a run, hub and target included",
        (*PYTHON, "benchmarks.power", "--losses", "50"),
        ("--losses", "2"),
        r"\d+ power losses .*",
    ),
    Part(
        "power-unsynced",
        "the same, when some agents' git does not fsync: all that cells and the target name can be read",
        (*PYTHON, "benchmarks.power", "--losses", "30", "--unsynced"),
        ("--losses", "2"),
        r"\d+ power losses .*",
    ),
    Part(
        "power-xfs",
        "the same on xfs",
        (*PYTHON, "benchmarks.power", "--losses", "10", "--fs", "xfs"),
        ("--losses", "2"),
        r"\d+ power losses .*",
    ),
)


def commit() -> str:
    """What is proved: a commit, with a + when files differ from it."""
    said = subprocess.run(
        ["git", "describe", "--always", "--dirty=+", "--abbrev=8", "--exclude=*"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return said.stdout.strip() or "unknown"


def prove(part: Part, quick: bool) -> tuple[int, str, float]:
    """-> (exit code, the line that says it, seconds). What was printed is kept; progress is shown at once."""
    command = [*part.command, *(part.quick if quick else ())]
    began = time.monotonic()
    printed = ""
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **({} if quick else part.environ)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as running:
        for line in running.stdout or ():
            printed += _without_places(line)
            if line.startswith("  "):  # `tables.note`
                print(line, end="", file=sys.stderr, flush=True)
    seconds = time.monotonic() - began
    if not quick:
        KEPT.mkdir(exist_ok=True)
        shown = " ".join(x for x in part.command[4:])
        (KEPT / f"{part.name}.txt").write_text(f"$ {part.command[3]} {shown}\n{printed}")
    return running.returncode, said(part, printed), seconds


def said(part: Part, printed: str) -> str:
    """The line of it that says it."""
    found = re.findall(part.said, printed)
    line: str = found[-1] if found else printed.strip().rpartition("\n")[2]
    return line.strip().replace("|", "/")


def _without_places(line: str) -> str:
    """What is kept is read elsewhere: no path of this machine."""
    if line.startswith("  kept: "):
        return ""
    for place, name in (
        (ROOT, "."),
        (sys.prefix, "<venv>"),
        (sys.base_prefix, "<python>"),
        (Path.home(), "~"),
    ):
        line = line.replace(str(place), name)
    return line


def write(rows: dict[str, str]) -> None:
    """Replace the rows of the parts that ran; the others stay."""
    page = PAGE.read_text()
    head, _, rest = page.partition(BEGIN)
    table, _, tail = rest.partition(END)
    kept = {line.split("|")[1].strip(): line for line in table.splitlines() if line.startswith("| ")}
    kept.pop("proof", None)
    kept |= rows
    lines = ["| proof | what | said | minutes | commit |", "|---|---|---|---|---|"]
    lines += [kept[p.name] for p in PARTS if p.name in kept]
    PAGE.write_text(f"{head}{BEGIN}\n" + "\n".join(lines) + f"\n{END}{tail}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/prove", description=__doc__)
    names = [p.name for p in PARTS]
    parser.add_argument("part", nargs="*", metavar="PART", help=f"of: {', '.join(names)}; default all")
    parser.add_argument("--quick", action="store_true", help="fewer of everything; writes nothing")
    args = parser.parse_args()
    if unknown := set(args.part) - set(names):
        parser.error(f"no proof {min(unknown)!r}; there are: {', '.join(names)}")
    print(f"machine: {machine(Path('/var/tmp'))}", flush=True)
    rows, failed, proved = {}, [], commit()
    for part in PARTS:
        if args.part and part.name not in args.part:
            continue
        code, text, seconds = prove(part, args.quick)
        print(
            f"{'ok    ' if code == 0 else 'FAILED'} {part.name}: {text} ({seconds / 60:.1f} min)", flush=True
        )
        if code:
            failed.append(part.name)
        rows[part.name] = (
            f"| {part.name} | {part.what} | {'' if code == 0 else '**failed**: '}{text} | {seconds / 60:.1f} | {proved} |"
        )
    if not args.quick:
        write(rows)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
