"""What is fetched for a run, all of it below one temporary folder: a virtual environment, programs of the distribution, C.

Nothing is installed on the machine: packages of Debian and its like are downloaded and unpacked, not set up. What cannot be
had is `Missing`, with a reason of one line.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.tables import note

LIMIT_S = 240.0
"""For one call of a package manager."""


class Missing(Exception):
    """A peer cannot run here; the text says why, in one line."""


@dataclass(slots=True)
class Environment:
    """A virtual environment of the run."""

    python: str
    versions: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    """package -> why it could not be installed"""


def last_line(text: str) -> str:
    return next((x.strip()[:160] for x in reversed(text.splitlines()) if x.strip()), "it said nothing")


def call(command: Sequence[str], *, env: dict[str, str] | None = None) -> str:
    """Run it to its end. -> stdout; raises Missing with the last line of what it said."""
    try:
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            env=env,
            stdin=subprocess.DEVNULL,
        )
    except OSError as e:
        raise Missing(f"{command[0]}: {e.strerror}") from e
    except subprocess.TimeoutExpired as e:
        raise Missing(f"{command[0]} took longer than {LIMIT_S:.0f} s") from e
    if done.returncode:
        raise Missing(f"{Path(command[0]).name}: {last_line(done.stderr or done.stdout)}")
    return done.stdout


def environment(folder: Path, packages: Sequence[str]) -> Environment:
    """Make `folder` a virtual environment with these packages; those that cannot be had are in `missing`."""
    note(f"installing {', '.join(packages)} for this run")
    call([sys.executable, "-I", "-m", "venv", str(folder)])
    made = Environment(python=str(folder / "bin" / "python"))
    pip = [made.python, "-I", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
    try:
        call([*pip, *packages])
    except Missing:  # one of them, or they do not go together: then each for itself
        for package in packages:
            try:
                call([*pip, package])
            except Missing as e:
                made.missing[package] = str(e)
    code = (
        "import importlib.metadata as m, json; "
        "print(json.dumps({d.metadata['Name'].lower(): d.version for d in m.distributions()}))"
    )
    made.versions = json.loads(call([made.python, "-I", "-c", code]))
    return made


def bare(package: str) -> str:
    """The name of a package without its extras."""
    return package.partition("[")[0]


def program(name: str, debian: str, folder: Path) -> tuple[Path, dict[str, str]]:
    """A server's program: from PATH, from where Debian puts PostgreSQL's, or unpacked from the package `debian`.

    -> its path, and the environment to run it (and what lies beside it) with
    """
    env = dict(os.environ)
    if found := shutil.which(name):
        return Path(found).resolve(), env
    for path in sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True):
        return path, env
    unpacked = unpack(debian, folder)
    paths = [p for p in unpacked.rglob(f"bin/{name}") if os.access(p, os.X_OK)]
    if not paths:
        raise Missing(f"the package {debian} holds no {name}")
    libraries = [str(p) for p in (*unpacked.glob("usr/lib/*-linux-gnu"), *unpacked.glob("lib/*-linux-gnu"))]
    return paths[0], {**env, "LD_LIBRARY_PATH": ":".join(libraries)}


def unpack(package: str, folder: Path) -> Path:
    """Download a package of the distribution and what it needs, and unpack them. -> where"""
    if not shutil.which("apt-get") or not shutil.which("dpkg"):
        raise Missing(f"it is not installed, and there is no apt-get to fetch {package}")
    note(f"fetching {package} for this run")
    debs, root = folder / "debs", folder / "root"
    (debs / "partial").mkdir(parents=True, exist_ok=True)
    fetch = ["apt-get", "-qq", "-y", "-o", f"Dir::Cache::archives={debs}", "-o", "Debug::NoLocking=1"]
    fetch += ["-o", "APT::Sandbox::User=", "--no-install-recommends", "--download-only", "install", package]
    try:
        call(fetch)
    except Missing:  # its lists may be missing or old
        call(["apt-get", "-qq", "update"])
        call(fetch)
    for deb in debs.glob("*.deb"):
        call(["dpkg", "-x", str(deb), str(root)])
    return root


def compiled(source: Path, target: Path) -> str:
    """Compile one C file. -> the program"""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if not compiler:
        raise Missing("there is no C compiler")
    call([compiler, "-O2", "-o", str(target), str(source)])
    return str(target)
