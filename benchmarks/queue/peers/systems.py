"""Which queues are compared, what each needs, and whether it can be had here."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.queue.peers import servers
from benchmarks.queue.peers.install import Environment, Missing, bare, compiled, environment
from benchmarks.tables import note

NO_FSYNC = "it never fsyncs"


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """One row. `packages`: what pip is asked for; the first gives the version. `needs`: postgres, redis, gcc or ""."""

    name: str
    title: str
    driver: str = ""
    packages: tuple[str, ...] = ()
    needs: str = ""
    undurable: str = ""
    """Why there is no durable mode, or ""."""


OURS = System(name="ours", title="**harness**")
PEERS = (
    System(
        name="procrastinate",
        title="procrastinate, PostgreSQL",
        driver="procrastinate",
        packages=("procrastinate", "psycopg[binary]"),
        needs="postgres",
    ),
    System(name="rq", title="RQ, Redis", driver="rq", packages=("rq",), needs="redis"),
    System(name="celery", title="Celery, Redis", driver="celery", packages=("celery[redis]",), needs="redis"),
    System(
        name="dramatiq",
        title="dramatiq, Redis",
        driver="dramatiq",
        packages=("dramatiq[redis]",),
        needs="redis",
    ),
    System(name="huey-sqlite", title="huey, SQLite", driver="huey_sqlite", packages=("huey",)),
    System(name="huey-file", title="huey, files", driver="huey_file", packages=("huey",), undurable=NO_FSYNC),
    System(name="litequeue", title="litequeue, SQLite", driver="litequeue", packages=("litequeue",)),
    System(
        name="persist-queue",
        title="persist-queue, SQLite",
        driver="persistqueue",
        packages=("persist-queue",),
    ),
    System(name="dirq", title="dirq, files", driver="dirq", packages=("dirq",), undurable=NO_FSYNC),
    System(name="link", title="our calls alone, Python", driver="link"),
    System(name="link-c", title="our calls alone, C", driver="link_c", needs="gcc"),
)


@dataclass(slots=True)
class Given:
    """What this run has of what the systems need."""

    environment: Environment | None = None
    missing: dict[str, str] = field(default_factory=dict)
    """system -> why it cannot run"""
    at: dict[tuple[str, bool], str] = field(default_factory=dict)
    """(need, durable) -> URL, conninfo or program"""
    versions: dict[str, str] = field(default_factory=dict)
    """what -> version, for the report"""

    def server(self, system: System, durable: bool) -> str:
        return self.at.get((system.needs, durable), "")


def prepare(chosen: list[System], folder: Path, stack: contextlib.ExitStack) -> Given:
    """Install and start what the chosen systems need; `stack` stops the servers."""
    given = Given()
    packages = sorted({p for s in chosen for p in s.packages})
    if packages:
        try:
            given.environment = environment(folder / "venv", packages)
        except Missing as e:
            given.missing |= {s.name: str(e) for s in chosen if s.packages}
        else:
            failed, versions = given.environment.missing, given.environment.versions
            for s in chosen:
                if why := next((failed[p] for p in s.packages if p in failed), ""):
                    given.missing[s.name] = why
            names = {bare(p) for p in packages} - {"psycopg"}
            given.versions |= {n: versions[n] for n in sorted(names) if n in versions}
    for need in sorted({s.needs for s in chosen if s.needs and s.name not in given.missing}):
        try:
            _provide(need, folder, stack, given)
        except (Missing, OSError) as e:
            note(f"{need}: {e}")
            given.missing |= {s.name: f"no {need}: {e}" for s in chosen if s.needs == need}
    return given


def _provide(need: str, folder: Path, stack: contextlib.ExitStack, given: Given) -> None:
    if need == "gcc":
        source = Path(__file__).parent / "drivers" / "link.c"
        given.at[need, True] = given.at[need, False] = compiled(source, folder / "link")
    elif need == "postgres":
        at, given.versions["PostgreSQL"] = stack.enter_context(servers.postgres(folder / "pg"))
        given.at[need, True] = given.at[need, False] = at
    else:
        for durable in (True, False):
            at, version = stack.enter_context(servers.redis(folder / "redis", durable=durable))
            given.at[need, durable], given.versions["Redis"] = at, version
