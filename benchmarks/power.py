"""Power loss in the middle of a run, for real: ext4 on a loop device, EXT4_IOC_SHUTDOWN without flushing, mount again.

    ./scripts/power [--losses N] [--items N] [--seed S] [--fs ext4|xfs] [--unsynced] [--control]    needs root, loop devices, mkfs.ext4

Everything that was not fsynced is gone after the ioctl. The daemon is killed, the journal replayed, the repositories
checked, the daemon started again, until the last loss is over and every item must be there once. `--control` runs
with `durability: process`, which promises nothing about power, and succeeds when the check finds that out.

Power goes at any moment; or, nothing else being written any more, right after somebody was told that an item is cancelled;
or right after a batch was admitted, while no worker runs; or a moment after everything was written out.

Lock files that a loss leaves in the hub are no violation until the next start, which has to remove them. In the person's
repository only the person removes one, who is played here: until then a publish is refused, and nothing else.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks.checker import check, check_unfinished, repositories
from benchmarks.fleet import Fleet
from benchmarks.storm import Storm, published
from benchmarks.tables import Row, note

SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN, the same number as XFS_IOC_GOINGDOWN
NO_LOG_FLUSH = 2
NEVER = "never done"
MKFS = {"ext4": ("mkfs.ext4", "-q", "-F", "-i", "8192"), "xfs": ("mkfs.xfs", "-q", "-f")}


class Disk:
    """A small file system of our own, on a file."""

    def __init__(
        self,
        where: Path,
        megabytes: int = 512,
        kind: str = "ext4",
        *,
        more: Sequence[str] = (),
        options: str = "loop",
    ) -> None:
        self.options = options
        self.mounted = False
        """Known, not asked for: a file system that was shut down says EIO when it is looked at (xfs)."""
        self.base = Path(tempfile.mkdtemp(prefix="harness-power.", dir=where))
        self.image, self.mount = self.base / "disk.img", self.base / "mnt"
        self.mount.mkdir()
        with self.image.open("wb") as file:
            file.truncate(megabytes << 20)
        try:
            sh(*MKFS[kind], *more, str(self.image))
            self.on()
        except subprocess.CalledProcessError:
            self.close()
            raise

    def on(self) -> None:
        sh("mount", "-o", self.options, str(self.image), str(self.mount))
        self.mounted = True
        if "shutdown" in sh("findmnt", "-no", "OPTIONS", str(self.mount)):
            raise RuntimeError(f"{self.mount} is still the file system that was shut down: somebody holds it")

    def power_off(self) -> None:
        """From now on nothing reaches the disk any more, and nothing that waits in memory will."""
        fd = os.open(self.mount, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(fd)

    def off(self) -> None:
        deadline = time.monotonic() + 30
        while subprocess.run(["umount", str(self.mount)], check=False, capture_output=True).returncode:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.mount} stays busy")
            time.sleep(0.1)
        self.mounted = False
        # The last process that was killed lets go of its mount namespace a moment later.
        while sh("losetup", "-j", str(self.image)) and time.monotonic() < deadline:
            time.sleep(0.1)

    def close(self) -> None:
        """Unmounts and removes it. What stays busy stays, and is named."""
        if self.mounted:
            try:
                self.off()
            except TimeoutError as e:
                note(f"{e}; it is left")
                return
        shutil.rmtree(self.base)


def sh(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def _own_mounts() -> None:
    """A mount namespace of our own: otherwise any process that makes one (a sandbox, a container) holds our mount."""
    libc = ctypes.CDLL(None, use_errno=True)
    new_namespace, recursive_private = 0x20000, 0x4000 | 0x40000
    if libc.unshare(new_namespace) or libc.mount(None, b"/", None, recursive_private, None):
        raise OSError(ctypes.get_errno(), "cannot make a mount namespace")


def possible(kind: str = "ext4") -> str:
    """Why this cannot be done here, or ""."""
    if os.geteuid() != 0:
        return "needs root (mount, shutdown ioctl)"
    for program in (MKFS[kind][0], "mount", "umount", "findmnt", "losetup"):
        if shutil.which(program) is None:
            return f"needs {program}"
    try:
        _own_mounts()
    except OSError as e:
        return f"no mount namespace can be made here: {e.strerror}"
    try:
        disk = Disk(Path(tempfile.gettempdir()), 16 if kind == "ext4" else 512, kind)
    except subprocess.CalledProcessError as e:
        return f"no {kind} on a loop device can be mounted here: {e.stderr.strip()}"
    try:
        disk.power_off()
    except OSError as e:
        return f"a file system cannot be shut down here (EXT4_IOC_SHUTDOWN): {e.strerror}"
    finally:
        disk.close()
    return ""


def losses(
    where: Path,
    *,
    number: int,
    seed: int,
    items: int = 0,
    workers: int = 3,
    durability: str = "power",
    kind: str = "ext4",
    failpoint: str = "",
    unsynced: bool = False,
) -> tuple[int, list[str]]:
    """-> (items, everything that was wrong after any loss or at the end). `items`: 0 for eight for each loss.

    What is not done in time is killed, and checked all the same. Raises RuntimeError for trouble with this machine.
    """
    items = items or 8 * number
    chance = random.Random(seed)
    disk = Disk(where, kind=kind)
    wrong: list[str] = []
    try:
        fleet = Fleet(
            disk.mount,
            workers=workers,
            durability=durability,
            files=60,
            failpoint=failpoint,
            retry={"first_delay_s": 0.0, "max_delay_s": 1.0, "max_attempts": 900},
        )
        storm = Storm(
            fleet,
            random.Random(seed + 1),
            items=items,
            kills=0,
            people_too=False,
            durable_drops=True,
            unsynced=unsynced,
        )
        os.sync()  # the person's repository and the config were there long ago
        try:
            wrong = _all(fleet, storm, disk, chance, number)
        except TimeoutError as e:
            fleet.kill_all()
            wrong = check_unfinished(fleet, storm.expected, storm.cancelled, storm.told)
            wrong.append(f"{NEVER}: {str(e)[:2000]}")
        finally:
            fleet.kill_all()
    finally:
        if wrong and os.environ.get("BENCH_KEEP"):
            note(f"kept: {disk.base}")
        else:
            disk.close()
    return items, wrong


def _all(fleet: Fleet, storm: Storm, disk: Disk, chance: random.Random, number: int) -> list[str]:
    for k in range(number):
        before = (_at_any_moment, _right_after_a_cancel, _right_after_a_batch, _a_while_after_a_sync)[k % 4]
        wrong = [f"loss {k + 1}: {w}" for w in _one(fleet, storm, disk, chance, before)]
        note(f"power loss {k + 1} of {number}: {fleet.finished()} items archived; wrong: {len(wrong)}")
        if wrong:
            return wrong  # what is built on it would be wrong too
    storm.run(timeout_s=600)
    fleet.until(lambda: published(fleet), 120, "everything is published")
    fleet.finish()
    storm.note_events()
    note(f"lock files that were removed from the hub: {', '.join(storm.unlocked) or 'none'}")
    note(f"{len(storm.told)} of {len(storm.cancelled)} cancels were said to have been made before power went")
    return check(fleet, storm.expected, storm.cancelled, storm.told, unsynced=storm.unsynced)


def _at_any_moment(_: Fleet, __: Storm, chance: random.Random) -> None:
    time.sleep(chance.uniform(0, 1.5))


def _a_while_after_a_sync(_: Fleet, __: Storm, chance: random.Random) -> None:
    """As in an attempt that lasts longer than the kernel waits: what began it is on the disk, what it did last is not."""
    os.sync()
    time.sleep(chance.uniform(0.1, 1.0))


def _right_after_a_cancel(fleet: Fleet, storm: Storm, chance: random.Random) -> None:
    _stop(fleet)
    names = []
    for path in sorted(fleet.queue.glob("open/*/item.json")):
        with contextlib.suppress(ValueError):  # torn by an earlier loss: a mistake, which `check` finds
            names.append(json.loads(path.read_bytes())["id"])
    for name in chance.sample(names, len(names)):
        if name in storm.alone and storm.cancel(name, 10):
            return


def _right_after_a_batch(fleet: Fleet, storm: Storm, _: random.Random) -> None:
    _stop(fleet, but="coordinator")
    name = storm.batch(5)
    with contextlib.suppress(TimeoutError):  # the coordinator waits for the hub of one that was stopped
        fleet.until(lambda: _admitted(fleet, name), 10, "the batch is admitted")


def _stop(fleet: Fleet, but: str = "") -> None:
    """Nothing else writes to the disk any more, and so makes durable what somebody forgot."""
    for _ in range(2):  # what was started meanwhile
        for process in fleet.processes():
            if process.role != but:
                process.kill(signal.SIGSTOP)


def _admitted(fleet: Fleet, name: str) -> bool:
    left = [p.name for p in (fleet.queue / "incoming").iterdir()]
    return not (fleet.queue / f"{name}.json").exists() and not any(p.startswith(f"{name}-") for p in left)


def _one(
    fleet: Fleet,
    storm: Storm,
    disk: Disk,
    chance: random.Random,
    before: Callable[[Fleet, Storm, random.Random], None],
) -> list[str]:
    """Run for a while, lose power after `before`, come back. -> what is wrong before anything was recovered."""
    fleet.start(wait_for=0)
    fleet.until((fleet.queue / "open").is_dir, 60, "the store is there")
    storm.some(chance.randrange(1, 5))
    before(fleet, storm, chance)
    disk.power_off()
    fleet.kill_all()
    disk.off()
    disk.on()
    for lock in (fleet.app / ".git").rglob("*.lock"):
        note(f"the person removes {lock.relative_to(fleet.base)}")
        lock.unlink()
    _boot_anew(fleet)
    return [*_torn(fleet.queue), *repositories(fleet, only_named=True)]


def _boot_anew(fleet: Fleet) -> None:
    """This machine has not lost its power: what is noted of its boot must be of another one."""
    for boot in fleet.state.glob("repos/*.ours/boot"):
        boot.write_text("another boot")
    for record in fleet.state.glob("repos/*.ours/slots/*.json"):
        with contextlib.suppress(ValueError):  # torn
            record.write_text(json.dumps(json.loads(record.read_bytes()) | {"boot": "another boot"}))


def _torn(queue: Path) -> Iterator[str]:
    """Items that were admitted, and are not whole."""
    for path in (p for phase in ("waiting", "open", "archive") for p in (queue / phase).rglob("item.json")):
        try:
            json.loads(path.read_bytes())
        except ValueError as e:
            yield f"{path.parent.name}/item.json: {e}"


def rows(where: Path, quick: bool) -> list[Row]:
    """For the table: the losses, and the control run that must fail."""
    number = 3 if quick else 10
    if why := possible():
        return [Row(check="power loss", wanted="", measured=f"not measured: {why}", reached=None)]
    items, wrong = losses(where, number=number, seed=1)
    for line in wrong:
        note(line)
    _, control = losses(where, number=number, seed=1, durability="process")
    return [
        Row(
            check=f"power loss in mid-run, {number} times (ext4 on a loop device, shutdown ioctl), {items} items",
            wanted="`git fsck --strict` of hub and target, every named sha readable, nothing lost or double",
            measured="all of it" if not wrong else f"{len(wrong)} violations: {wrong[0]}",
            reached=not wrong,
        ),
        Row(
            check="… control run: `durability: process`, git does not fsync",
            wanted="must fail",
            measured=f"fails: {control[0][:200]}" if control else "found nothing wrong",
            reached=bool(control),
        ),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/power", description=__doc__.splitlines()[0])
    parser.add_argument("--losses", type=int, default=10)
    parser.add_argument("--items", type=int, default=0, help="default: eight for each loss")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--control", action="store_true", help="with durability: process; succeeds when it fails"
    )
    parser.add_argument("--fs", choices=sorted(MKFS), default="ext4")
    parser.add_argument("--failpoint", default="", help="a mistake of harness.failpoints, in the daemon")
    parser.add_argument("--unsynced", action="store_true", help="some agents' git does not fsync")
    parser.add_argument("--dir", type=Path, default=Path("/var/tmp"), help="where the image is made")
    options = parser.parse_args()
    if why := possible(options.fs):
        print(f"skipped: {why}")
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # nothing of it is left running, or mounted
    durability = "process" if options.control else "power"
    items, wrong = losses(
        options.dir,
        number=options.losses,
        seed=options.seed,
        items=options.items,
        workers=options.workers,
        durability=durability,
        kind=options.fs,
        failpoint=options.failpoint,
        unsynced=options.unsynced,
    )
    for line in wrong[:40]:
        print(line)
    print(
        f"{options.losses} power losses of {options.fs}, {items} items (seed {options.seed}), durability {durability}"
        f"{', unsynced agents' if options.unsynced else ''}: {len(wrong)} violations"
    )
    return int(bool(wrong) != options.control)


if __name__ == "__main__":
    sys.exit(main())
