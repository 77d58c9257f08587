"""./scripts/bench queue [--quick] [--full] [--only NAME,...] [--dir DIR]: our store beside other queues, table and chart.

Installs the peers for the run into a temporary folder below DIR (needs a network), starts their servers there, and removes
all of it. Takes about a quarter of an hour, with --quick less than 3 minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.queue.peers import cost, report, rounds
from benchmarks.queue.peers.systems import OURS, PEERS, prepare
from benchmarks.tables import machine, note, table

COST = "cost"
FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_TOPDIR_FL = 0x80086601, 0x40086602, 0x00020000
CHART = rounds.ROOT / "docs" / "queue.svg"


def spread_out(folder: Path) -> None:
    """On ext4: give each folder made in this one a block group of its own (chattr +T), away from what others deleted there."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        flags = int.from_bytes(fcntl.ioctl(fd, FS_IOC_GETFLAGS, bytes(8)), sys.byteorder)
        fcntl.ioctl(fd, FS_IOC_SETFLAGS, (flags | FS_TOPDIR_FL).to_bytes(8, sys.byteorder))
    except OSError:
        pass  # another file system, which has no such trouble
    finally:
        os.close(fd)


def main() -> int:
    names = [OURS.name, *(s.name for s in PEERS), COST]
    parser = argparse.ArgumentParser(
        prog="scripts/bench queue",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="one short round with 1 and 8 workers, no chart")
    parser.add_argument("--full", action="store_true", help="the cost of a claim with a million items, too")
    parser.add_argument("--only", default="", metavar="NAME,...", help=f"of: {', '.join(names)}; default all")
    parser.add_argument("--dir", type=Path, default=Path("/var/tmp"), help="where; a disk, not a tmpfs")
    parser.add_argument("--limit", type=float, default=10, help="minutes for the rounds; three, if they fit")
    options = parser.parse_args()
    only = [n for n in options.only.split(",") if n] or names
    if unknown := [n for n in only if n not in names]:
        parser.error(f"no system {unknown[0]!r}; there are: {', '.join(names)}")
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(143)
    )  # so that servers are stopped and the folder is removed
    options.dir.mkdir(parents=True, exist_ok=True)
    print(f"Machine: {machine(options.dir)}\n", flush=True)
    base = Path(tempfile.mkdtemp(prefix="peers-", dir=options.dir)).resolve()
    base.chmod(0o755)  # PostgreSQL runs as another user
    spread_out(base)
    began = time.monotonic()
    plan = rounds.QUICK if options.quick else rounds.Plan(limit_s=60 * options.limit)
    wrong = 0
    try:
        chosen = [s for s in PEERS if s.name in only]
        if chosen or OURS.name in only:
            with contextlib.ExitStack() as stack:
                given = prepare(chosen, base, stack)
                got = rounds.measure(chosen, given, base, plan)
            print(report.markdown(got, given), flush=True)
            wrong = sum(sum(got.series[OURS.name, durable].counts()[1:]) for durable in (True, False))
            if not options.quick and not options.only:
                CHART.write_text(report.svg(got, given))
        if COST in only:
            print("\n" + table(cost.rows(base, options.quick, options.full)))
    finally:
        shutil.rmtree(base, ignore_errors=True)
        note(f"all of it: {time.monotonic() - began:.0f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
