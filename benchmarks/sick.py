"""A disk that fails in the middle of a storm, for real, and heals: no room, no inodes, read-only.

    ./scripts/sick [--kind full|inodes|readonly|all] [--rounds N] [--seed S]      needs root, loop devices and mkfs.ext4

The whole root, and the person's repository, lie on a small ext4 of their own. In each round items run, then the disk
fails for some seconds: a file takes all its room, or empty files take all its inodes, and go again; or the kernel
itself makes it read-only, as it does when it meets a damaged block (`errors=remount-ro`), and everything is killed, the
file system checked and mounted again, as an operator has to. Processes that end on a full disk are
started again, as systemd does. In the end every item is there once, and the checker finds nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.checker import check
from benchmarks.fleet import Fleet
from benchmarks.power import Disk, possible, sh
from benchmarks.storm import Storm, published
from benchmarks.tables import note

KINDS = ("full", "inodes", "readonly")
ITEMS_PER_ROUND = 6
INODES = 16_384


class SickDisk(Disk):
    """An ext4 that can fail and heal."""

    def __init__(self, where: Path) -> None:
        super().__init__(where, 256, more=("-N", str(INODES), "-m", "0"), options="loop,errors=remount-ro")
        self.ballast = self.mount / "ballast"

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        """Not one block is free."""
        try:
            with self.ballast.open("wb") as file:
                size, step = 0, 64 << 20
                while step >= 4096:
                    try:
                        os.posix_fallocate(file.fileno(), size, step)
                        size += step
                    except OSError as e:
                        if e.errno != errno.ENOSPC:
                            raise
                        step //= 2
            yield
        finally:
            self.ballast.unlink(missing_ok=True)

    @contextlib.contextmanager
    def inodes(self) -> Iterator[None]:
        """Not one file can be made."""
        self.ballast.mkdir()
        try:
            for k in range(INODES):
                try:
                    (self.ballast / str(k)).touch()
                except OSError as e:
                    if e.errno != errno.ENOSPC:
                        raise
                    break
            yield
        finally:
            shutil.rmtree(self.ballast)

    def fail(self) -> None:
        """The kernel finds damage, and lets nobody write any more."""
        device = Path(sh("findmnt", "-no", "SOURCE", str(self.mount)).strip()).name
        Path(f"/sys/fs/ext4/{device}/trigger_fs_error").write_text("1")

    def repair(self) -> None:
        self.off()
        # 1: errors were corrected
        done = subprocess.run(
            ["e2fsck", "-f", "-p", str(self.image)], check=False, capture_output=True, text=True
        )
        if done.returncode not in (0, 1):
            raise RuntimeError(f"e2fsck: exit {done.returncode}: {done.stdout}{done.stderr}")
        self.on()


def sick(where: Path, kind: str, *, rounds: int, seed: int) -> tuple[int, list[str]]:
    """-> (items, everything that was wrong)"""
    chance = random.Random(seed)
    items = ITEMS_PER_ROUND * rounds
    disk = SickDisk(where)
    wrong: list[str] = []
    try:
        fleet = Fleet(
            disk.mount, files=60, retry={"first_delay_s": 0.0, "max_delay_s": 1.0, "max_attempts": 900}
        )
        storm = Storm(fleet, random.Random(seed + 1), items=items, kills=0, people_too=False)
        try:
            for k in range(rounds):
                _round(fleet, storm, disk, chance, kind)
                note(
                    f"{kind}, round {k + 1} of {rounds}: {fleet.finished()} items archived; wrong: {len(wrong)}"
                )
            storm.run(timeout_s=600)
            fleet.until(lambda: published(fleet), 120, "everything is published")
            fleet.finish()
            wrong += check(fleet, storm.expected)
        except (TimeoutError, RuntimeError) as e:
            wrong.append(str(e)[:2000])
        finally:
            fleet.kill_all()
    finally:
        if wrong and os.environ.get("BENCH_KEEP"):
            note(f"kept: {disk.base}")
        else:
            disk.close()
    return items, wrong


def _round(fleet: Fleet, storm: Storm, disk: SickDisk, chance: random.Random, kind: str) -> None:
    if not fleet.started():
        fleet.start(wait_for=0)
        fleet.until((fleet.queue / "open").is_dir, 60, "the store is there")
    storm.some(chance.randrange(1, ITEMS_PER_ROUND))
    storm.feed()
    time.sleep(chance.uniform(0, 0.7))
    hold_s = chance.uniform(1, 4)
    if kind == "readonly":
        disk.fail()
        time.sleep(hold_s)
        fleet.kill_all()
        disk.repair()
        return
    with disk.full() if kind == "full" else disk.inodes():
        time.sleep(hold_s)


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/sick", description=__doc__.splitlines()[0])
    parser.add_argument("--kind", choices=(*KINDS, "all"), default="all")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--dir", type=Path, default=Path("/var/tmp"), help="where the image is made")
    options = parser.parse_args()
    if why := possible() or ("" if shutil.which("e2fsck") else "needs e2fsck"):
        print(f"skipped: {why}")
        return 0
    kinds = KINDS if options.kind == "all" else (options.kind,)
    total, items = 0, 0
    for kind in kinds:
        dropped, wrong = sick(options.dir, kind, rounds=options.rounds, seed=options.seed)
        for line in wrong[:40]:
            print(line)
        total, items = total + len(wrong), items + dropped
    print(
        f"a disk that was {', '.join(kinds)}, {options.rounds} times each, {items} items (seed {options.seed}): {total} violations"
    )
    return int(bool(total))


if __name__ == "__main__":
    sys.exit(main())
