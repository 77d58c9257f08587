"""Containment of attempts: what their programs are wrapped in, and how whatever is left of them is ended.

It alone knows the options of `jail.py`. All kinds of containment that a machine offers are combined; each of
them alone is enough to end an attempt, with the exceptions that `explain()` names:

* cgroup: one group for each attempt; `cgroup.kill` ends it as a whole, from any process, at any time.
* pidns: init of a PID namespace dies with its worker, and everything in the namespace with init.
* marks: the wrapper is a subreaper and kills its orphans; whatever is left is found by ``HARNESS_ATTEMPT`` in the
  environment, by descent, and by its working directory.

The sandbox keeps files: Landlock (no privileges needed, Linux 6.2 for all of it), or bubblewrap, or none.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import field
from enum import StrEnum
from pathlib import Path

from harness import cgroups, jail, mechanisms, probing, procs
from harness.config import Sandbox
from harness.dataclass import dataclass
from harness.errors import ConfigError, HarnessError
from harness.mechanisms import Finding

KILL_S = 10.0
"""How long `kill` waits for killed processes to be gone; uninterruptible I/O can take longer."""
_SIGKILL, _SIGSTOP = 9, 19


class Kind(StrEnum):
    """How the processes of an attempt are held together, best first."""

    CGROUP = "cgroup"
    PIDNS = "pidns"
    MARKS = "marks"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What a contained program may do with files: read everything except `hide`, write only below `write`.

    `write` and `read` win over a `hide` above them. Paths are absolute and free of symbolic links, and those of
    `write` and `read` exist. A hidden path need not exist yet.
    """

    write: tuple[Path, ...]
    hide: tuple[Path, ...] = ()
    read: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        for path in (*self.write, *self.hide, *self.read):
            if not path.is_absolute() or ".." in path.parts:
                raise HarnessError("a path of a sandbox policy is not absolute and plain", where=path)
        for hidden in self.hide:
            for writable in (*self.write, *self.read):
                if hidden.is_relative_to(writable):
                    raise HarnessError(
                        f"cannot be hidden: it lies in {writable}, which the same policy opens",
                        where=hidden,
                        remedy="move it out of there, or list the folders that are opened one by one",
                    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Jail:
    """What one program of an attempt runs in. `mark` is ``<uid>.<n>``, unique on the host; no policy: no sandbox."""

    mark: str
    policy: Policy | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Containment:
    """The containment of this machine. Made by `probe`; without arguments: marks, no sandbox, can still `kill`."""

    cgroup: Path | None = None
    """Our own cgroup, in which those of the attempts are made."""
    namespaces: tuple[str, ...] = ()
    """``pid``, and ``mount`` and ``user`` as far as needed and possible."""
    sandbox: Sandbox = Sandbox.NONE
    findings: tuple[Finding, ...] = field(default=(), compare=False)

    @classmethod
    def probe(
        cls, sandbox: Sandbox = Sandbox.AUTO, *, only: Kind | None = None, cache: Path | None = None
    ) -> Containment:
        """Tries each mechanism for real and combines those that work.

        `sandbox` auto: Landlock where all of it is there; else bubblewrap; else Landlock without protection of
        existing files from truncation (Linux before 6.2); else none. Landlock comes first because it needs nothing
        to be installed and no privilege, works in containers, and shows the agent the machine as it is; bubblewrap
        does where it alone may make namespaces (Ubuntu's AppArmor) and there is no cgroup, so that processes are
        held too. Raises ConfigError when the sandbox that was asked for does not work here. `only` leaves out the
        other kinds. `cache`: where what was found is remembered (Layout.mechanisms).
        """
        offer = probing.offer(cache)
        chosen = _choose(sandbox, offer)
        namespaces = offer.namespaces if only in (None, Kind.PIDNS) else ()
        return cls(
            cgroup=offer.cgroup if only in (None, Kind.CGROUP) else None,
            namespaces=namespaces,
            sandbox=chosen,
            findings=offer.findings,
        )

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """What is combined, best first; marks always."""
        has = {
            Kind.CGROUP: self.cgroup is not None,
            Kind.PIDNS: bool(self.namespaces) or self.sandbox is Sandbox.BWRAP,
            Kind.MARKS: True,
        }
        return tuple(kind for kind in Kind if has[kind])

    @property
    def kind(self) -> Kind:
        return self.kinds[0]

    def describe(self) -> tuple[Finding, ...]:
        """Every mechanism, available or why not; empty when nothing was probed."""
        return self.findings

    def explain(self) -> list[str]:
        """What this containment guarantees, and what it does not, in sentences for `doctor`."""
        return [
            {
                Kind.CGROUP: "processes: held in one cgroup for each attempt; none survives it",
                Kind.PIDNS: "processes: held in a PID namespace that dies with its worker; none survives it",
                Kind.MARKS: "processes: best effort. If the wrapper of an attempt is itself killed by SIGKILL, a"
                " program that has cleared its environment and left the worktree survives."
                " Allow user namespaces, or delegate a cgroup (systemd: Delegate=yes)",
            }[self.kind],
            {
                Sandbox.LANDLOCK: "files: Landlock. An agent writes only to its own folders and reads no credentials."
                " It can list the names in hidden folders, and connect to sockets that its user may connect to",
                Sandbox.BWRAP: "files: bubblewrap. An agent writes only to its own folders and sees no credentials."
                " It can connect to sockets that its user may connect to",
            }.get(self.sandbox, "files: no sandbox. An agent can read and write all that its user can"),
            *(
                f"{one.name}: {'' if one.available else 'not available: '}{one.detail}"
                for one in self.findings
            ),
        ]

    def wrap(self, argv: Sequence[str], jail_: Jail, *, status: int | None = None) -> list[str]:
        """The argv that runs `argv` in the jail. To be spawned by this very process, from its main thread.

        PR_SET_PDEATHSIG follows the thread: when another thread has spawned it, its end kills the jail. Makes the
        cgroup of the attempt when there is none yet. To `status`, a file descriptor that the jail inherits, one
        line is written: ``ended <code or -signal> <survivors>`` or ``error <why nothing was run>``.
        """
        spec = ["--mark", jail_.mark, "--parent", str(os.getpid())]
        if status is not None:
            spec += ["--status", str(status)]
        if self.cgroup is not None:
            spec += ["--cgroup", str(self._create(self.cgroup, jail_.mark))]
        else:
            cgroups.mark_name(jail_.mark)  # refuses what is no mark
        policy = jail_.policy if self.sandbox is not Sandbox.NONE else None
        if policy is not None:
            spec += [word for path in policy.write for word in ("--write", str(path))]
            spec += [word for path in policy.read for word in ("--read", str(path))]
        if policy is not None and self.sandbox is Sandbox.BWRAP:
            bwrap = mechanisms.bwrap_argv(policy.write, policy.read, policy.hide)
            spec += [word for argument in bwrap for word in ("--bwrap", argument)]
            inner = ["--init", "1", "--mark", jail_.mark]
            inner += [] if status is None else ["--status", str(status)]
            return mechanisms.jail_argv(spec, mechanisms.jail_argv(inner, argv))
        if policy is not None:
            spec += ["--landlock", "1", *(word for path in policy.hide for word in ("--hide", str(path)))]
        spec += [word for name in self.namespaces for word in ("--namespaces", name)]
        return mechanisms.jail_argv(spec, argv)

    def kill(self, mark: str, below: Iterable[Path] = ()) -> int:
        """Ends every process of the attempt with SIGKILL and waits for their end. Returns how many there were.

        From any process, at any time, again and again. Members are: what is in the attempt's cgroup; what has its
        mark in the environment; all descendants of those; and what works in one of the folders `below`, belongs to
        our user and has no terminal (a person's shell in a worktree is spared). Never this process or its ancestors.
        They are stopped before they are killed, so that none forks away meanwhile.
        """
        killed: set[procs.ProcessId] = set()
        stopped: set[procs.ProcessId] = set()
        folders = [os.path.realpath(path) for path in below]
        groups = self._groups(mark)
        for group in groups:
            inhabitants = [procs.ProcessId.of(pid) for pid in group.pids()]
            if group.kill():
                killed.update(one for one in inhabitants if one is not None)
        for one in killed:
            one.wait(KILL_S)
        deadline = time.monotonic() + KILL_S
        while (members := _members(mark, folders)) and time.monotonic() < deadline:
            fresh = [one for one in members if one not in stopped]
            for one in fresh:
                procs.signal(one, _SIGSTOP)
            stopped.update(fresh)
            if fresh:
                continue
            for one in members:
                procs.signal(one, _SIGKILL)
            killed.update(members)
            for one in members:
                one.wait(max(0.0, deadline - time.monotonic()))
        for group in groups:
            group.remove()
        return len(killed)

    def empty(self, mark: str, below: Iterable[Path] = ()) -> bool:
        """Whether no process of the attempt is left, as far as this kind of containment can know."""
        folders = [os.path.realpath(path) for path in below]
        return not any(group.populated() for group in self._groups(mark)) and not _members(mark, folders)

    def release(self, mark: str) -> None:
        """Removes the attempt's cgroup, if there is one and nothing is left in it."""
        if self.cgroup is not None:
            cgroups.Group(self.cgroup / cgroups.mark_name(mark)).remove()

    def _groups(self, mark: str) -> list[cgroups.Group]:
        """Where the attempt's cgroup is, if it has one: below ours, or (we were started elsewhere) below another."""
        own = self.cgroup or cgroups.directory()
        if own is not None and (here := cgroups.Group(own / cgroups.mark_name(mark))).exists():
            return [here]
        for pid in cgroups.members(mark):
            folder = cgroups.directory(pid)
            for place in () if folder is None else (folder, *folder.parents):
                if place.name == cgroups.mark_name(mark):
                    return [cgroups.Group(place)]
        return []

    def _create(self, base: Path, mark: str) -> Path:
        try:
            return cgroups.Group.create(base, mark).path
        except OSError as e:
            raise HarnessError(
                f"cannot make a cgroup for an attempt: {e.strerror}",
                where=base,
                remedy="delegate it (systemd: Delegate=yes), or restart harness so that it looks again",
            ) from e


def _choose(wanted: Sandbox, offer: mechanisms.Offer) -> Sandbox:
    whole_landlock = offer.landlock_abi >= jail.ABI_WITH_TRUNCATE
    held_without_bwrap = offer.cgroup is not None or bool(offer.namespaces)
    works = {Sandbox.LANDLOCK: offer.landlock_abi > 0, Sandbox.BWRAP: offer.bwrap, Sandbox.NONE: True}
    if wanted is Sandbox.AUTO:
        order = [Sandbox.BWRAP, Sandbox.LANDLOCK, Sandbox.NONE]
        if whole_landlock and held_without_bwrap:
            order.insert(0, Sandbox.LANDLOCK)
        return next(one for one in order if works[one])
    if not works[wanted]:
        name = "Landlock" if wanted is Sandbox.LANDLOCK else "bubblewrap"
        why = next(one.detail for one in offer.findings if one.name == name)
        raise ConfigError(
            f"{wanted} does not work on this machine: {why}",
            where="sandbox",
            remedy="make it work, or write `sandbox: auto` for the best that there is (harnessctl doctor shows it)",
        )
    return wanted


def _members(mark: str, folders: Sequence[str]) -> list[procs.ProcessId]:
    """Living processes of the attempt that this process may end."""
    spared = {os.getpid(), *procs.ancestors(os.getpid())}
    found = {one.pid for one in procs.environ_marked(mark)} - spared
    found |= set(cgroups.members(mark)) - spared
    if folders:
        found |= {
            one.pid for one in procs.working_below(map(Path, folders)) if _orphan_like(one.pid)
        } - spared
    return [one for one in procs.tree(found) if one.pid not in spared] if found else []


def _orphan_like(pid: int) -> bool:
    """Ours, and not what a person at a terminal has started."""
    seen = procs.stat(pid)
    try:
        owner = os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return False
    return seen is not None and seen.tty == 0 and owner == os.geteuid()


def adopt_orphans() -> None:
    """From now on orphans of our descendants become our children (PR_SET_CHILD_SUBREAPER), not those of init.

    For workers without namespaces: what is left when the wrapper of an attempt was killed is found as a new child.
    """
    jail.prctl(jail.PR_SET_CHILD_SUBREAPER, 1)


def kill_children(pids: Iterable[int]) -> int:
    """Kills and reaps children of this process that it has not started itself; returns how many were alive.

    Their own children become ours and are treated alike.
    """
    pending, killed = list(pids), 0
    while pending:
        pid = pending.pop()
        seen = procs.stat(pid)
        if seen is None or seen.ppid != os.getpid():
            continue
        pending += [one.pid for one in procs.snapshot().values() if one.ppid == pid]
        killed += not seen.dead
        try:  # a child of ours that we have not waited for: its pid cannot have been reused
            os.kill(pid, _SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, PermissionError, ChildProcessError):
            continue
    return killed
