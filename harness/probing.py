"""What this machine offered when it was last tried: `state/run/mechanisms.json`, so that a worker need not try again.

The trials cost half a second of CPU; a worker that replaces a dead one has no time for that. What was found holds as long
as everything that it depends on is the same (`circumstances`), and for a day at most. Only a hint: a mechanism that has
ceased to work makes the next jail fail to start, which is reported and costs no attempt.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from shutil import which
from typing import Any

from harness import cgroups, mechanisms, procs
from harness.mechanisms import Finding, Offer

VERSION = 1
MAX_AGE_S = 86_400.0
_SWITCHES = (
    "/proc/sys/user/max_user_namespaces",
    "/proc/sys/user/max_pid_namespaces",
    "/proc/sys/user/max_mnt_namespaces",
    "/proc/sys/kernel/unprivileged_userns_clone",
    "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
)
_PRIVILEGES = ("CapEff:", "CapBnd:", "NoNewPrivs:", "Seccomp:", "Seccomp_filters:", "Uid:", "Gid:")


def circumstances() -> dict[str, str]:
    """All that decides which mechanisms work: this boot, who and where we are, what we may, what is switched off."""
    status = (procs.read(os.getpid(), "status") or b"").decode(errors="replace").splitlines()
    found = {
        line.partition(":")[0]: line.partition(":")[2].strip()
        for line in status
        if line.startswith(_PRIVILEGES)
    }
    for space in ("user", "pid", "mnt", "cgroup"):
        found[f"{space} namespace"] = _link(f"/proc/self/ns/{space}")
    for switch in _SWITCHES:
        found[switch] = _text(switch)
    return found | {
        "boot": procs.boot_id(),
        "kernel": os.uname().release,
        "cgroup": str(cgroups.directory()),
        "bwrap": which("bwrap") or "",
        "python": sys.executable,
        "confinement": _text("/proc/self/attr/current"),
    }


def offer(cache: Path | None = None) -> Offer:
    """As `mechanisms.offer`, from the cache while that holds; otherwise tried, and remembered there."""
    if cache is None:
        return mechanisms.offer()
    now = circumstances()
    known = _read(cache, now)
    if known is None:
        known = mechanisms.offer()
        _write(cache, now, known)
    return known


def _read(cache: Path, now: dict[str, str]) -> Offer | None:
    try:
        if not 0 <= time.time() - cache.stat().st_mtime < MAX_AGE_S:
            return None
        data: dict[str, Any] = json.loads(cache.read_bytes())
        if data["v"] != VERSION or data["circumstances"] != now:
            return None
        said = data["offer"]
        return Offer(
            cgroup=Path(said["cgroup"]) if said["cgroup"] else None,
            namespaces=tuple(said["namespaces"]),
            landlock_abi=int(said["landlock_abi"]),
            bwrap=bool(said["bwrap"]),
            findings=tuple(Finding(**f) for f in said["findings"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(cache: Path, now: dict[str, str], found: Offer) -> None:
    plain = asdict(found) | {"cgroup": str(found.cgroup) if found.cgroup else None}
    tmp = cache.with_name(f".{cache.name}.{os.getpid()}")
    try:
        tmp.write_text(json.dumps({"v": VERSION, "circumstances": now, "offer": plain}) + "\n")
        os.replace(tmp, cache)
    except OSError:
        tmp.unlink(missing_ok=True)  # the next process tries for itself


def _text(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace").strip("\0\n")
    except OSError:
        return ""


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""
