"""Every git process that we start: one environment, one way to run it, one way to fail.

Git is configured by files that an agent can write (the hub's `config`, hooks, attributes of a worktree), and it runs
programs that they name. So each call gets a whole environment of ours, settings that win over every file
(`GIT_CONFIG_COUNT`, as `-c`), names its directories instead of discovering them, and is preceded by the guard, which
puts the hub's own files back (guard.py). Only `upstream` calls, which talk to the person's repository, see the
person's git configuration, credentials and ssh agent.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterable, Mapping
from dataclasses import field
from pathlib import Path
from typing import Protocol

from harness.dataclass import dataclass
from harness.errors import GitError, TryAgainError
from harness.runner import Command, Ended, EndReason

LOCAL_S = 600.0
"""Deadline of a call that only touches this machine: a checkout of a huge tree on a slow disk takes minutes."""
NETWORK_S = 900.0
LOCK_RETRIES = 3
MAX_OUTPUT = 256 * 1024 * 1024

IDENTITY: Mapping[str, str] = {
    "GIT_AUTHOR_NAME": "harness",
    "GIT_AUTHOR_EMAIL": "harness@localhost",
    "GIT_COMMITTER_NAME": "harness",
    "GIT_COMMITTER_EMAIL": "harness@localhost",
}
"""Who commits what we commit. Agents' own commits get theirs from the environment that the worker makes."""

SETTINGS: Mapping[str, str] = {
    "core.fsmonitor": "false",  # names a program
    "core.hooksPath": "/dev/null",
    "core.attributesFile": "/dev/null",
    "core.excludesFile": "/dev/null",
    "core.untrackedCache": "false",  # lives in an index that an agent can write
    "core.commitGraph": "false",  # a forged one invents parents
    "core.multiPackIndex": "false",
    "core.quotePath": "false",
    "core.filesRefLockTimeout": "2000",  # ms: others' short updates pass by themselves
    "core.packedRefsTimeout": "5000",
    "commit.gpgSign": "false",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "fetch.recurseSubmodules": "false",
    "fetch.writeCommitGraph": "false",
    "push.recurseSubmodules": "no",
    "push.followTags": "false",
    "push.gpgSign": "false",
    "submodule.recurse": "false",
    "diff.ignoreSubmodules": "all",  # asking a nested repository runs what *its* configuration names
    "safe.directory": "*",  # the hub is ours, whoever runs `harnessctl`; not inherited by the person's upload-pack
}

_PASSED = ("PATH", "TMPDIR", "LD_LIBRARY_PATH")
_PASSED_UPSTREAM = re.compile(
    r"HOME|USER|LOGNAME|LANG|XDG_\w+|SSH_\w+|GIT_SSH\w*|GIT_SSL_\w+|GIT_PROXY_\w+|GIT_ASKPASS|GIT_CONFIG_(GLOBAL|SYSTEM|NOSYSTEM)"
    r"|GIT_TRACE\w*|(http|https|ftp|all|no)_proxy|(HTTP|HTTPS|ALL|NO)_PROXY|SSL_CERT_\w+|CURL_CA_BUNDLE|KRB5\w*|GNUPGHOME|DBUS_SESSION_BUS_ADDRESS"
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_LEFT_OUT = re.compile(rb"^warning: could not open directory '", re.MULTILINE)
"""`git status` and `git add` go on without what is in it, and succeed."""
_PASSES = re.compile(
    r"No space left on device|Out of diskspace|[Qq]uota exceeded|[Cc]annot allocate memory|out of memory|Too many open files|Input/output error"
    r"|Resource temporarily unavailable"
)
"""What git says when the machine could not, and may be able to a little later."""
_KILLS = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
"""Sent by somebody. A git that crashes by what it works on would crash again."""
_LOCK_EXISTS = re.compile(r"Unable to create '(.+?\.lock)': File exists")


class CommandRunner(Protocol):
    """The one place where anything that can block is run (`harness.runner.Runner`)."""

    def run(self, command: Command, /) -> Ended: ...


class GitCommandError(GitError):
    """A git command failed. Holds what a caller may decide by: the exit code and what git said.

    `exit_code` 75: nothing is known by it, and the same call may succeed later; it was killed (by the kernel, for memory),
    or the machine had no room for it.
    """

    def __init__(
        self, args: tuple[str, ...], ended: Ended, *, where: Path, remedy: str | None = None
    ) -> None:
        self.command = args
        self.exit_code_of_git = ended.exit_code
        self.stdout = ended.stdout.decode("utf-8", "replace")
        self.stderr = ended.stderr.decode("utf-8", "replace")
        how = (
            f"exit {ended.exit_code}"
            if ended.exit_code is not None
            else f"{ended.reason.value}, signal {ended.signal}"
        )
        said = self.stderr.strip()[-2000:] or ended.error or ""
        if (ended.reason is EndReason.EXITED and ended.signal in _KILLS) or _PASSES.search(said):
            self.exit_code = TryAgainError.exit_code
        super().__init__(
            f"git {' '.join(args)[:300]}: {how}{': ' + said if said else ''}", where=where, remedy=remedy
        )

    @property
    def passing(self) -> bool:
        """Nothing is wrong with what git worked on: the same call may succeed later."""
        return self.exit_code == TryAgainError.exit_code


class GitInterrupted(GitError):
    """Our own process was asked to stop (or the deadline passed) while git ran. The same call may be made again."""

    exit_code = 75

    def __init__(self, args: tuple[str, ...], ended: Ended, *, where: Path) -> None:
        self.reason = ended.reason
        self.stop_reason = ended.stop_reason
        why = ended.stop_reason or ended.reason.value
        super().__init__(
            f"git {' '.join(args)[:300]} was stopped after {ended.duration_s:.0f} s: {why}", where=where
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """Where a call works on files: a worktree, its admin directory in the hub, and an index.

    All three are named to git, because an agent can rewrite `.git`, `commondir` and the index itself.
    """

    path: Path
    admin: Path
    index: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    code: int
    raw: bytes
    stderr: str

    @property
    def text(self) -> str:
        return os.fsdecode(self.raw).strip()

    def fields(self) -> list[bytes]:
        """NUL-terminated output -> its fields."""
        return self.raw.split(b"\0")[:-1] if self.raw else []


@dataclass(frozen=True, slots=True, kw_only=True)
class Git:
    """Runs git on one repository of ours."""

    runner: CommandRunner
    repository: Path
    home: Path
    """An empty folder of ours: what git takes for HOME."""
    before: Callable[[], object] = field(repr=False)
    """Called before each call: the guard."""
    unlock: Callable[[Path], bool] = field(repr=False)
    """Removes a lock file that is proved stale; False: it is not, or not ours."""
    extra: Mapping[str, str] = field(default_factory=dict)

    def __call__(
        self,
        *args: str,
        tree: Tree | None = None,
        stdin: bytes = b"",
        ok: tuple[int, ...] = (0,),
        env: Mapping[str, str] | None = None,
        upstream: Path | None = None,
        whole: bool = False,
    ) -> Output:
        """Runs `git args`; raises GitCommandError when the exit code is not in `ok`, GitInterrupted when stopped.

        `upstream`: a repository with this one's objects, in which git talks to the person's (`far`).
        `whole`: also GitCommandError when git could not look into a folder of the worktree, which it only mentions.

        A lock file that a killed git left behind is removed when that is proved safe, and the call made again.
        """
        if upstream is not None:
            cwd = self.repository
            places = {"GIT_DIR": str(upstream), "GIT_OBJECT_DIRECTORY": str(self.repository / "objects")}
        elif tree is None:
            cwd, places = self.repository, {"GIT_DIR": str(self.repository)}
        else:
            cwd = tree.path
            places = {
                "GIT_DIR": str(tree.admin),
                "GIT_COMMON_DIR": str(self.repository),
                "GIT_WORK_TREE": str(tree.path),
                "GIT_INDEX_FILE": str(tree.index),
            }
        environ = plain_environment(self.home) if upstream is None else person_environment()
        environ |= {**settings_environment({**SETTINGS, **self.extra}), **IDENTITY, **places, **(env or {})}
        tries = LOCK_RETRIES
        while True:
            self.before()
            ended = self._run(args, cwd, environ, stdin, far=upstream is not None)
            tries -= 1
            done = ended.reason is EndReason.EXITED and ended.exit_code in ok
            if done and whole and _LEFT_OUT.search(ended.stderr):
                remedy = "make it readable (chmod u+rwx), or remove it"
                raise GitCommandError(args, ended, where=self.repository, remedy=remedy)
            if ended.reason is EndReason.TIMED_OUT:
                # Perhaps it waited for who writes into a pipe that stands for an object.
                objects = str(self.repository / "objects")
                self.run_beside(("find", objects, "!", "-type", "f", "!", "-type", "d", "-delete"), ok=(0, 1))
            if done or not tries or not self._unlocked(ended.stderr):
                return self._output(args, ended, ok)

    def unguarded(self, *args: str) -> Output:
        """Before there is anything to guard: `git init`."""
        env = plain_environment(self.home) | {"GIT_DIR": str(self.repository)}
        return self._output(args, self._run(args, self.repository, env, b"", far=False), (0,))

    def elsewhere(self, folder: Path, *args: str, ok: tuple[int, ...] = (0,)) -> Output:
        """A question to a repository that is not ours, under the person's own configuration. It must only read."""
        return self._output(args, self._run(args, folder, person_environment(), b"", far=True), ok)

    def _output(self, args: tuple[str, ...], ended: Ended, ok: tuple[int, ...]) -> Output:
        if ended.reason in (EndReason.STOPPED, EndReason.TIMED_OUT, EndReason.STALLED):
            raise GitInterrupted(args, ended, where=self.repository)
        if ended.reason is not EndReason.EXITED or ended.exit_code is None or ended.exit_code not in ok:
            raise GitCommandError(args, ended, where=self.repository)
        return Output(code=ended.exit_code, raw=ended.stdout, stderr=ended.stderr.decode("utf-8", "replace"))

    def _unlocked(self, stderr: bytes) -> bool:
        found = _LOCK_EXISTS.search(os.fsdecode(stderr))
        return found is not None and self.unlock(Path(found[1]))

    def _run(
        self, args: tuple[str, ...], cwd: Path, env: Mapping[str, str], stdin: bytes, *, far: bool
    ) -> Ended:
        return self.runner.run(
            Command(
                argv=("git", *args),
                cwd=cwd,
                env=env,
                stdin=stdin,
                timeout_s=NETWORK_S if far else LOCAL_S,
                far=far,
                max_output_bytes=MAX_OUTPUT,
            )
        )

    def run_beside(self, argv: tuple[str, ...], *, ok: tuple[int, ...] = (0,)) -> int:
        """A program that is not git but may block just as long (`sync`, `rm`), in the hub's folder. -> its exit code"""
        ended = self.runner.run(
            Command(
                argv=argv,
                cwd=self.home,
                env=plain_environment(self.home),
                stdin=b"",
                timeout_s=LOCAL_S,
                max_output_bytes=MAX_OUTPUT,
            )
        )
        if ended.reason in (EndReason.STOPPED, EndReason.TIMED_OUT, EndReason.STALLED):
            raise GitInterrupted(argv, ended, where=self.repository)
        if ended.exit_code not in ok:
            said = ended.stderr.decode("utf-8", "replace").strip()[-500:]
            how = f"signal {ended.signal}" if ended.exit_code is None else f"exit {ended.exit_code}"
            failed = GitError(f"{' '.join(argv)[:300]}: {how}: {said}", where=self.repository)
            if ended.signal is not None:
                failed.exit_code = TryAgainError.exit_code
            raise failed
        return ended.exit_code or 0


def plain_environment(home: Path) -> dict[str, str]:
    """Nothing of the person's: no configuration, no credentials, no language."""
    env = {name: os.environ[name] for name in _PASSED if name in os.environ}
    return env | {
        "HOME": str(home),
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_DEFAULT_REF_FORMAT": "files",
        "GIT_EDITOR": "false",
        "GIT_PAGER": "cat",
    }


def person_environment() -> dict[str, str]:
    """For fetch and push: the person's git configuration, credentials and ssh agent work, and nothing prompts.

    Messages stay English (we read some), the character set stays theirs (their hooks may care).
    """
    env = {
        name: value
        for name, value in os.environ.items()
        if name in _PASSED or _PASSED_UPSTREAM.fullmatch(name) is not None
    }
    if "LC_ALL" in os.environ:
        env["LANG"] = os.environ["LC_ALL"]
    return env | {
        "LC_MESSAGES": "C",
        "LANGUAGE": "C",
        "GIT_TERMINAL_PROMPT": "0",
        "SSH_ASKPASS_REQUIRE": "never",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_NO_REPLACE_OBJECTS": "1",
    }


def settings_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Settings that win over every configuration file: git-config(1), GIT_CONFIG_COUNT."""
    env = {"GIT_CONFIG_COUNT": str(len(settings))}
    for i, (name, value) in enumerate(settings.items()):
        env[f"GIT_CONFIG_KEY_{i}"] = name
        env[f"GIT_CONFIG_VALUE_{i}"] = value
    return env


def transaction(lines: Iterable[str]) -> bytes:
    """Lines for `git update-ref --stdin`: all or nothing, and never through a symbolic ref that an agent planted.

    Raises ValueError for a line that is two: what is in a name must not become a command.
    """
    text = ""
    for line in lines:
        if _CONTROL.search(line):
            raise ValueError(f"not one line: {line!r}")
        text += f"option no-deref\n{line}\n"
    return os.fsencode(text)
