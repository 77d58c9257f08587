"""What every adapter needs to start its tool: the environment with its credential, a configuration folder of the session.

Secrets stand in the environment of the tool only; no error shows their text.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from harness.agents.base import CannotInvoke, Task
from harness.agents.environment import passed, plain
from harness.agents.home import own_file, own_folder, put_aside, read_own
from harness.agents.outcomes import Auth, BadRequest, Crash
from harness.atomicfs import replace_file
from harness.config import Agent, Credential, expand
from harness.errors import ConfigError

MAX_ARGUMENT_BYTES = 128 << 10
"""MAX_ARG_STRLEN of Linux, the closing NUL included: execve(2), "Limits on size of arguments and environment"."""
MAX_SECRET_BYTES = 64 << 10
MAX_LOGIN_BYTES = 1 << 20


def environment(
    agent: Agent,
    credential: Credential | None,
    task: Task,
    environ: Mapping[str, str],
    own: Mapping[str, str],
    fill: Callable[[str], str] = str,
) -> dict[str, str]:
    """The whole environment of a tool; what comes later wins: ours, `own` (the adapter's), what the daemon hands on,
    the agent's `env` (each value through `fill`), the credential, HARNESS_*.

    Raises CannotInvoke for a variable or a credential that is not there.
    """
    env = plain(environ, home=task.home, tmp=task.tmp, name=task.agent, slot=task.slot)
    env |= own
    env |= passed(environ, agent.env_pass)
    for name, value in agent.env.items():
        try:
            env[name] = expand(fill(value), environ, where=f"agents.{task.agent}.env.{name}")
        except ConfigError as e:
            raise CannotInvoke(e.what, Auth(detail=e.what), where=e.where, remedy=e.remedy) from None
    if credential is not None:
        env[credential.variable] = secret(credential, environ)
    return env | {
        "HARNESS_ITEM": task.item,
        "HARNESS_ATTEMPT": task.mark,
        "HARNESS_SLOT": task.slot,
        "HARNESS_WORKTREE": str(task.worktree),
        "HARNESS_PROMPT_FILE": str(task.prompt_file),
        "HARNESS_INTERRUPT_FILE": str(task.interrupt_file),
        "HARNESS_FINDINGS_FILE": str(task.findings_file),
        "HARNESS_SESSION": task.resume or task.session,
        "HARNESS_ROUND": str(task.round),
    }


def seed(
    agent: Agent, home: Path, inside: Path, environ: Mapping[str, str], logins: Collection[str]
) -> dict[Path, Path]:
    """Makes the tool's configuration folder of this session, `inside` its HOME: a copy of `config_from`, once; `logins` are
    links. A folder that an agent has put something else in the place of is made anew.

    -> `Invocation.shared`, of the logins that are there. Raises CannotInvoke when `config_from` is no folder or cannot be
    copied, OSError.
    """
    source = _source(agent, environ)
    folder = own_folder(home, inside.parent) / inside.name
    if folder.is_symlink() or not folder.is_dir():
        if os.path.lexists(folder):
            put_aside(folder)
        draft = folder.with_name(f"{folder.name}.new")
        if os.path.lexists(draft):
            put_aside(draft)
        if source is None:
            draft.mkdir(mode=0o700)
        else:
            _copy(source, draft, logins)
            draft.chmod(0o700)
        draft.rename(folder)
    found = {folder / name: source / name for name in logins} if source is not None else {}
    return share(found, home)


def _copy(source: Path, draft: Path, logins: Collection[str]) -> None:
    """Regular files and folders, links as what they lead to. Raises CannotInvoke."""
    named = shutil.ignore_patterns(*logins, "projects", "sessions", "logs", "tmp", ".tmp", "cache")

    def skipped(folder: str, names: list[str]) -> set[str]:
        return set(named(folder, names)) | {name for name in names if not _copied(folder, name)}

    try:
        shutil.copytree(source, draft, ignore=skipped, ignore_dangling_symlinks=True)
    except shutil.Error as e:
        where, _, why = e.args[0][0]
        what = f"config_from cannot be copied: {why}"
        remedy = "make it readable, or name a folder of its own with what the tool needs"
        raise CannotInvoke(what, Crash(detail=what), where=where, remedy=remedy, not_started=True) from None


def _copied(folder: str, name: str) -> bool:
    """Not sockets and pipes, nor a link to a folder that it is in itself."""
    path = os.path.join(folder, name)
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    if os.path.islink(path) and stat.S_ISDIR(mode):
        return not Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(path))
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)


def share(logins: Mapping[Path, Path], home: Path) -> dict[Path, Path]:
    """Makes each of these names in `home` a link to the login that all sessions share. -> those that are there, by their
    real paths.

    A login holds a token that is renewed: copies of it would make each other invalid. A tool that renews it by putting
    another file in the link's place has that file taken over, when it is younger. Raises OSError.
    """
    out = {}
    for link, login in logins.items():
        real = Path(os.path.realpath(login))
        if not real.is_file():
            continue
        own_folder(home, link.parent.relative_to(home))
        if not link.is_symlink():
            own_file(link)
        if os.path.realpath(link) != str(real):
            if link.is_file() and not link.is_symlink() and link.stat().st_mtime > real.stat().st_mtime:
                with contextlib.suppress(OSError):  # too large for a login
                    replace_file(real, read_own(link, MAX_LOGIN_BYTES), durable=True, mode=0o600)
            link.unlink(missing_ok=True)
            link.symlink_to(real)
        out[link] = real
    return out


def _source(agent: Agent, environ: Mapping[str, str]) -> Path | None:
    if agent.config_from is None:
        return None
    try:
        source = Path(expand(agent.config_from, environ, where="agents"))
    except ConfigError as e:
        raise CannotInvoke(e.what, Auth(detail=e.what), where=e.where, remedy=e.remedy) from None
    if not source.is_dir():
        what = "config_from is no folder"
        raise CannotInvoke(what, Auth(detail=what), where=source, remedy="make it, or name another one")
    return source


def refuse_too_long(argv: tuple[str, ...], env: Mapping[str, str], task: Task) -> None:
    """Linux limits one argument and all of them with the environment; a tool must not die of E2BIG with no word."""
    where, remedy = f"agents.{task.agent}", "shorten its arguments; of a command: set prompt: file (or stdin)"
    sizes = [len(os.fsencode(word)) + 1 for word in argv]
    if any("\0" in word for word in argv):
        what = "the prompt holds a NUL character and cannot be an argument"
    elif max(sizes) > MAX_ARGUMENT_BYTES:
        what = f"an argument of {max(sizes)} bytes is over the system's limit of {MAX_ARGUMENT_BYTES}"
    elif sum(sizes) + _size_of(env) > os.sysconf("SC_ARG_MAX") - 4096:
        what = "the arguments and the environment together are over the system's limit"
    else:
        return
    raise CannotInvoke(what, BadRequest(detail=f"{what}; {remedy}"), where=where, remedy=remedy)


def _size_of(env: Mapping[str, str]) -> int:
    """Bytes on the new stack: each string with `=` and NUL, and its pointer."""
    return sum(len(os.fsencode(name)) + len(os.fsencode(value)) + 10 for name, value in env.items())


def secret(credential: Credential, environ: Mapping[str, str]) -> str:
    """The value, from its file or the daemon's environment. Its text never shows in an error."""
    if credential.file is None:
        if environ.get(credential.variable):
            return environ[credential.variable]
        what = f"{credential.variable} is not set in the daemon's environment"
        remedy = "set it there, or name a file in `credentials`"
        raise CannotInvoke(what, Auth(detail=what), remedy=remedy)
    try:
        path = Path(expand(credential.file, environ, where="credentials"))
        with path.open("rb") as file:
            raw = file.read(MAX_SECRET_BYTES + 1)
        value = raw.decode().strip()
    except ConfigError as e:
        raise CannotInvoke(e.what, Auth(detail=e.what), where=e.where, remedy=e.remedy) from None
    except OSError as e:
        what = f"the credential's file cannot be read: {e.strerror}"
        raise CannotInvoke(
            what, Auth(detail=what), where=credential.file, remedy="see its permissions"
        ) from None
    except UnicodeDecodeError:
        raw, value = b"", ""
    if not value or len(raw) > MAX_SECRET_BYTES or "\0" in value:
        what = "the credential's file is empty or holds no plain text"
        raise CannotInvoke(what, Auth(detail=what), where=credential.file, remedy="put the key alone into it")
    return value
