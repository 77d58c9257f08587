"""The host: Python, git, limits of the kernel, the clock."""

from __future__ import annotations

import ctypes
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from harness import procs
from harness.doctor.check import Check, fail, ok, warn

OLDEST_PYTHON = (3, 11)
OLDEST_GIT = (2, 38)
FEW_FILES = 1024
FEW_PROCESSES = 500
GIT_S = 10.0
_IN_CLOEXEC = 0o2000000
SCARCE_MB = 1024
EARLIEST = 1_735_689_600.0
"""2025-01-01. A clock before it was never set."""


def python() -> Iterator[Check]:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < OLDEST_PYTHON:
        yield fail("python", f"{version} is too old", "install Python 3.11 or newer")
    else:
        yield ok("python", f"{version} ({sys.executable})")
    if os.environ.get("PYTHONDONTWRITEBYTECODE"):
        yield warn(
            "python", "PYTHONDONTWRITEBYTECODE is set: every command is slow", "unset PYTHONDONTWRITEBYTECODE"
        )


def git() -> Iterator[Check]:
    path = shutil.which("git")
    if path is None:
        yield fail("git", "not found on PATH", "install git 2.38 or newer")
        return
    try:
        run = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=GIT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as e:
        yield fail("git", f"{path} cannot be run: {e}", "install git 2.38 or newer")
        return
    match = re.search(r"(\d+)\.(\d+)", run.stdout)
    if match is None:
        yield fail(
            "git", f"{path} does not say its version: {run.stdout[:100]!r}", "install git 2.38 or newer"
        )
    elif (int(match[1]), int(match[2])) < OLDEST_GIT:
        yield fail("git", f"{match[0]} has no merge-tree --write-tree", "install git 2.38 or newer")
    else:
        yield ok("git", f"{run.stdout.strip().removeprefix('git version ')} ({path})")


def user() -> Iterator[Check]:
    if os.geteuid() == 0:
        yield warn(
            "user",
            "you are root: without a sandbox, agents can do anything to this machine",
            "run the daemon as a user of its own: harnessctl service install --user harness",
        )
    else:
        yield ok("user", f"uid {os.geteuid()}")


def files() -> Iterator[Check]:
    """Limits on open files and processes."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < FEW_FILES:
        yield warn(
            "limits", f"only {soft} open files for a process", f"ulimit -n {FEW_FILES}, or LimitNOFILE="
        )
    else:
        yield ok(
            "limits",
            f"{'any number of' if soft == resource.RLIM_INFINITY else soft} open files for a process",
        )
    most, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if most != resource.RLIM_INFINITY and most < FEW_PROCESSES:
        yield warn("limits", f"only {most} processes for this user", f"ulimit -u {FEW_PROCESSES} or more")


def inotify() -> Iterator[Check]:
    """One instance is needed, by the coordinator; without it the slow sweep finds drops."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.inotify_init1(_IN_CLOEXEC)
    if fd >= 0:
        os.close(fd)
        instances = _number("/proc/sys/fs/inotify/max_user_instances")
        yield ok("inotify", f"works ({instances} instances for a user)")
        return
    yield warn(
        "inotify",
        f"no instance is free: {os.strerror(ctypes.get_errno())}; drops are found by the slow sweep",
        "sysctl fs.inotify.max_user_instances=512, or end what holds them",
    )


def memory() -> Iterator[Check]:
    """Room for the daemon's own processes and a few agents (several hundred MB each, by their tools)."""
    free_mb = psutil.virtual_memory().available >> 20
    swap_mb = psutil.swap_memory().free >> 20
    if free_mb < SCARCE_MB:
        yield warn(
            "memory",
            f"{free_mb} MB are available (swap: {swap_mb} MB)",
            "fewer workers in config.yaml, or more memory: an agent's tool takes 200 to 900 MB",
        )
    else:
        yield ok("memory", f"{free_mb} MB are available")


def clock() -> Iterator[Check]:
    now = time.time()
    if now < EARLIEST:
        yield warn(
            "clock",
            f"it is {time.strftime('%Y-%m-%d', time.gmtime(now))}, says this machine",
            "set the clock (timedatectl set-ntp true): not_before and all records depend on it",
        )
    else:
        yield ok("clock", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)))
    if not procs.boot_id():
        yield warn("clock", "this kernel does not name its boots (/proc is hidden)", "mount /proc")


def _number(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return "?"
