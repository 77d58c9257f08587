"""What this machine offers to contain an attempt: each mechanism is tried for real, not deduced from versions.

Distributions switch user namespaces off in several ways, container runtimes filter system calls, a cgroup may be
visible and not ours: only a trial tells. The trials run beside each other, some 100 ms of CPU time altogether.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness import cgroups, jail, procs
from harness.dataclass import dataclass

TRIAL = "trial-"
TRIAL_S = 20.0
"""A machine that is so slow that a trial takes longer gets by without the mechanism."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of `harnessctl doctor`: a mechanism, whether it works here, and how, or why not."""

    name: str
    available: bool
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """All that was found."""

    cgroup: Path | None
    namespaces: tuple[str, ...]
    landlock_abi: int
    bwrap: bool
    findings: tuple[Finding, ...]


def jail_argv(options: Sequence[str], command: Sequence[str]) -> list[str]:
    """The command in a jail. Quick to start: no site-packages, no PYTHON* variables, but compiled bytecode, which
    a script given by its name would not have (8 ms). Our folder comes last on the path: it hides no standard module.
    """
    folder = os.path.dirname(os.path.abspath(jail.__file__))
    start = f"import sys; sys.path.append({folder!r}); import jail; jail.main()"
    return [sys.executable, "-I", "-S", "-c", start, *options, "--", *command]


def bwrap_argv(write: Sequence[Path] = (), read: Sequence[Path] = (), hide: Sequence[Path] = ()) -> list[str]:
    """bubblewrap's part of a jail: the machine read-only, hidden paths masked, the opened ones put over it.

    A hidden path that does not exist yet cannot be masked.
    """
    argv = [shutil.which("bwrap") or "bwrap", "--die-with-parent", "--unshare-pid", "--as-pid-1"]
    argv += ["--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"]
    for path in sorted(hide):
        if path.is_dir():
            argv += ["--tmpfs", str(path)]
        elif path.exists():
            argv += ["--ro-bind", "/dev/null", str(path)]
    for option, paths in (("--ro-bind", read), ("--bind", write)):
        for path in sorted(paths):
            argv += [option, str(path), str(path)]
    return argv


def offer() -> Offer:
    """Tries everything."""
    abi = jail.landlock_abi()
    with contextlib.ExitStack() as stack:
        cgroup = _CgroupTrial(stack)
        first, *others = _candidates()
        likely = _Trial(_namespaces(first))
        landlock = _landlock_trial(stack) if abi >= 2 else None
        bwrap = _bwrap_trial() if shutil.which("bwrap") else None
        why_not = likely.failure()
        chosen = first
        if why_not:
            chosen = next((names for names in others if not _Trial(_namespaces(names)).failure()), ())
        findings = (
            cgroup.finding(),
            _namespace_finding(chosen, why_not),
            _landlock_finding(abi, landlock),
            _bwrap_finding(bwrap),
        )
        return Offer(
            cgroup=cgroup.base if findings[0].available else None,
            namespaces=chosen,
            landlock_abi=abi if findings[2].available else 0,
            bwrap=findings[3].available,
            findings=findings,
        )


class _Trial:
    """A jail around a short command; started at once, asked later."""

    def __init__(self, options: Sequence[str], command: Sequence[str] = ("/bin/sh", "-c", ":")) -> None:
        self._result: str | None = None
        listen, tell = os.pipe()
        try:
            argv = jail_argv(["--parent", str(os.getpid()), "--status", str(tell), *options], command)
            self._process = subprocess.Popen(
                argv,
                env={"PATH": os.environ.get("PATH", os.defpath)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(tell,),
                start_new_session=True,
            )
        except BaseException:
            os.close(listen)
            raise
        finally:
            os.close(tell)
        self._listen = listen

    def failure(self) -> str:
        """Why it does not work; empty when it does."""
        if self._result is None:
            self._result = self._wait()
        return self._result

    def _wait(self) -> str:
        try:
            code = self._process.wait(TRIAL_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return f"no answer within {TRIAL_S:.0f} s"
        finally:
            with os.fdopen(self._listen, "rb", 0) as pipe:
                os.set_blocking(pipe.fileno(), False)
                line = (pipe.read(4096) or b"").decode(errors="replace").strip()
        if line.startswith("error "):
            return line.removeprefix("error ")
        return "" if code == 0 else f"exit code {code} of a trial"


def _namespaces(names: Sequence[str]) -> list[str]:
    return [word for name in names for word in ("--namespaces", name)]


def _candidates() -> Iterator[tuple[str, ...]]:
    """Best first. Root needs no user namespace, which would change who owns what it sees."""
    if os.geteuid() == 0:
        yield ("pid", "mount")
    yield ("pid", "mount", "user")
    if os.geteuid() == 0:
        yield ("pid",)
    yield ("pid", "user")


def _namespace_finding(chosen: tuple[str, ...], why_not: str) -> Finding:
    name = "PID namespace"
    if not chosen:
        return Finding(
            name=name,
            available=False,
            detail=f"{why_not}; allow unprivileged user namespaces (sysctl user.max_user_namespaces,"
            " kernel.apparmor_restrict_unprivileged_userns), or start harness with a delegated cgroup",
        )
    how = "through a user namespace" if "user" in chosen else "as root"
    proc = "own /proc" if "mount" in chosen else "/proc of the host stays visible"
    return Finding(name=name, available=True, detail=f"{how}, {proc}")


class _CgroupTrial:
    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.base = cgroups.directory()
        self._failure = ""
        self._trial: _Trial | None = None
        if self.base is None:
            self._failure = "no cgroup v2 hierarchy in sight"
            return
        try:
            remove_abandoned(self.base)
            group = cgroups.Group.create(self.base, f"{TRIAL}{os.getpid()}-{os.urandom(4).hex()}")
        except OSError as e:
            self._failure = f"{self.base} is not ours: {e.strerror}; delegate it (systemd: Delegate=yes)"
            return
        stack.callback(group.remove)
        if not (group.path / "cgroup.kill").exists():
            self._failure = "no cgroup.kill (Linux 5.14)"
            return
        self._trial = _Trial(["--cgroup", str(group.path)])

    def finding(self) -> Finding:
        failure = self._failure or (self._trial.failure() if self._trial else "")
        return Finding(
            name="cgroup", available=not failure, detail=failure or f"groups are made in {self.base}"
        )


def remove_abandoned(base: Path) -> None:
    """Groups of probes that were killed. One whose maker lives may just not have been joined yet."""
    for path in base.glob(f"{cgroups.PREFIX}{TRIAL}*"):
        maker = path.name.removeprefix(cgroups.PREFIX + TRIAL).partition("-")[0]
        if maker.isdecimal() and procs.stat(int(maker)) is None:
            cgroups.Group(path).remove()


def _landlock_trial(stack: contextlib.ExitStack) -> _Trial:
    """Works when a file that is not opened for writing cannot be written."""
    import tempfile  # for trials only, which are rare

    file = tempfile.NamedTemporaryFile(prefix="harness-trial-")  # noqa: SIM115  # closed by the stack
    stack.enter_context(file)
    refused = '! (: > "$1") 2> /dev/null'
    return _Trial(["--landlock", "1"], ["/bin/sh", "-c", refused, "sh", file.name])


def _landlock_finding(abi: int, trial: _Trial | None) -> Finding:
    name = "Landlock"
    if trial is None:
        why = "the kernel has none, or it is switched off (needs Linux 5.19 with landlock in the list `lsm=`)"
        return Finding(name=name, available=False, detail=why)
    if trial.failure():
        return Finding(name=name, available=False, detail=trial.failure())
    limits = []
    if abi < jail.ABI_WITH_TRUNCATE:
        limits.append("existing files can be truncated (fixed in Linux 6.2)")
    if abi < jail.ABI_WITH_SCOPES:
        limits.append("other processes of the user can be signalled (fixed in Linux 6.12)")
    return Finding(name=name, available=True, detail="; ".join([f"ABI {abi}", *limits]))


def _bwrap_trial() -> _Trial:
    options = [word for argument in bwrap_argv() for word in ("--bwrap", argument)]
    return _Trial(options, jail_argv(["--init", "1"], ["/bin/sh", "-c", ":"]))


def _bwrap_finding(trial: _Trial | None) -> Finding:
    name = "bubblewrap"
    if trial is None:
        return Finding(name=name, available=False, detail="not installed (package bubblewrap)")
    failure = trial.failure()
    return Finding(name=name, available=not failure, detail=failure or (shutil.which("bwrap") or "bwrap"))
