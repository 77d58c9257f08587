"""The root: its store, the file system below it, space, what was left behind."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from harness import presence
from harness.clock import rfc3339
from harness.config import Config, Durability
from harness.doctor.check import Check, Level, fail, ok, warn
from harness.layout import STORE_FOLDERS, Layout
from harness.store.setup import check_format, lease_works, self_test

LOCAL = frozenset({"ext4", "ext3", "xfs", "btrfs", "zfs", "f2fs", "bcachefs"})
VOLATILE = frozenset({"tmpfs", "ramfs"})
SHARED = frozenset({"nfs", "nfs4", "cifs", "smb3", "ceph", "glusterfs", "lustre", "9p", "virtiofs"})
FUTURE_S = 300.0
STALE_TMP_S = 3600.0


def store(layout: Layout) -> Iterator[Check]:
    check_format(layout)
    device = layout.queue.stat().st_dev
    missing = [name for name in STORE_FOLDERS if not (layout.queue / name).is_dir()]
    if missing:
        yield fail("store", f"queue/ lacks {', '.join(missing)}", "harnessctl init makes what is missing")
        return
    for name in STORE_FOLDERS:
        if (layout.queue / name).stat().st_dev != device:
            yield fail("store", f"queue/{name} is on another file system than queue/", "remove that mount")
            return
    if not os.access(layout.queue / "tmp", os.W_OK):
        yield fail("store", "queue/ belongs to another user", f"run this as {_owner(layout.queue)}")
        return
    self_test(layout)
    yield ok("store", f"{layout.queue}: links and locks work")


def leases(layout: Layout) -> Iterator[Check]:
    signal.signal(signal.SIGIO, signal.SIG_IGN)  # the default action of a lease break would end us
    if lease_works(layout):
        yield ok("leases", "the kernel says whether somebody still writes a drop")
    else:
        yield warn(
            "leases",
            "the kernel cannot say whether somebody still writes a drop: only time can tell",
            "write drops elsewhere and rename them in; harnessctl add and submit do",
        )


def file_system(layout: Layout) -> Iterator[Check]:
    kind = kind_of(layout.queue)
    if kind in LOCAL:
        yield ok("file system", kind)
    elif kind in VOLATILE:
        yield warn("file system", f"{kind}: everything is lost at a reboot", "put the root on a disk")
    elif kind in SHARED:
        yield warn(
            "file system",
            f"{kind} is shared: what other hosts do is seen late, and locks depend on its server",
            "use a local disk; NFS must be 4.2, mounted hard,lookupcache=none",
        )
    elif kind == "overlay":
        yield warn(
            "file system", "overlay: a container's layer, lost with the container", "mount a volume there"
        )
    else:
        yield warn(
            "file system", f"{kind or 'unknown'}: nobody has tried it", "ext4, xfs and btrfs are tried"
        )


def time_line(layout: Layout) -> Iterator[Check]:
    """Files of ours from the future mean that the clock was set back."""
    now = time.time()
    for folder in (layout.events, layout.queue / "open", layout.run):
        try:
            newest = max((entry.stat().st_mtime for entry in os.scandir(folder)), default=0.0)
        except FileNotFoundError:
            continue
        if newest > now + FUTURE_S:
            yield warn(
                "clock",
                f"{folder} has files from {rfc3339(newest)}, which is in the future",
                "the clock was set back; events and times of records are out of order until then",
            )


def leftovers(layout: Layout) -> Iterator[Check]:
    """Nothing here is dangerous; a coordinator sweeps most of it."""
    alive = {one.incarnation for one in presence.living(layout)}
    dead = [x.name for x in _entries(layout.presence) if x.name not in alive]
    if dead:
        yield ok("leftovers", f"{len(dead)} processes ended without a word; the next coordinator sweeps up")
    old = [x for x in _entries(layout.queue / "tmp") if time.time() - x.stat().st_mtime > STALE_TMP_S]
    if len(old) > 100:
        yield warn(
            "leftovers", f"queue/tmp holds {len(old)} old files", "start a coordinator, it sweeps them"
        )
    if kept := _entries(layout.kept):
        yield warn(
            "leftovers",
            f"{len(kept)} worktrees were kept because they held something unsaved",
            f"look into {layout.kept}, take what you need, remove the rest",
        )


def durability(config: Config) -> Iterator[Check]:
    if config.durability is Durability.PROCESS:
        yield warn(
            "durability",
            "process: survives every crash of a process, not a power loss",
            "durability: power in config.yaml",
        )
    else:
        yield ok("durability", "power: everything is synced before it is believed")


def free(layout: Layout, config: Config) -> Iterator[Check]:
    """Space and inodes, against the floor under which nothing is claimed."""
    for folder in dict.fromkeys(_device_once((layout.queue, layout.state))):
        info = os.statvfs(folder)
        free_mb = info.f_bavail * info.f_frsize >> 20
        name = f"{folder.name}/"
        level = Level.OK
        words = [f"{name}: {free_mb} MB"]
        if info.f_files:
            words.append(f"{info.f_favail} inodes")
        if free_mb < config.disk.floor_mb or (info.f_files and info.f_favail < config.disk.floor_inodes):
            level = Level.FAIL
        elif free_mb < 2 * config.disk.floor_mb:
            level = Level.WARN
        remedy = "" if level is Level.OK else f"free some; below {config.disk.floor_mb} MB nothing is claimed"
        yield Check(name="disk", level=level, detail=" and ".join(words) + " free", remedy=remedy)


def kind_of(path: Path) -> str:
    """The type of the file system that holds a path, as the kernel names it; "" when it cannot be found out."""
    try:
        device = os.stat(path).st_dev
        lines = Path("/proc/self/mountinfo").read_text(errors="replace").splitlines()
    except OSError:
        return ""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    best, kind = "", ""
    for line in lines:  # proc(5): id parent major:minor root mount-point options ... - type source options
        fields = line.split(" ")
        place = fields[4].encode().decode("unicode_escape")
        inside = place == "/" or path == Path(place) or Path(place) in path.parents
        if inside and (fields[2] == wanted or not kind) and len(place) >= len(best):
            best, kind = place, fields[fields.index("-") + 1]
    return kind


def _device_once(folders: tuple[Path, ...]) -> Iterator[Path]:
    seen: set[int] = set()
    for folder in folders:
        device = folder.stat().st_dev
        if device not in seen:
            seen.add(device)
            yield folder


def _entries(folder: Path) -> list[Path]:
    try:
        return [x for x in folder.iterdir() if not x.name.startswith(".")]
    except FileNotFoundError:
        return []


def _owner(path: Path) -> str:
    try:
        return path.owner()
    except KeyError:
        return f"uid {path.stat().st_uid}"
