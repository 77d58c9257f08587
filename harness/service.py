"""The systemd unit of a root: its text, and where it is put. Everything that it promises is a comment inside it."""

from __future__ import annotations

import grp
import os
import pwd
import re
import sys
from pathlib import Path

from harness.atomicfs import replace_file
from harness.dataclass import dataclass
from harness.errors import ConflictError, UsageError

NAME = "harness"
_NAME = re.compile(r"[A-Za-z0-9:_.@-]{1,100}\Z")
_AFTER_DRAIN_S = 60
"""What a stop may take after running attempts had their time: releasing, reaping."""

TEMPLATE = """\
# Made by: harnessctl service print
[Unit]
Description=harness: a fleet of AI coding agents ({root})
Wants=network-online.target
After=network-online.target
RequiresMountsFor={root_listed}
# A crash loop is not repaired by starting again for ever.
StartLimitIntervalSec=300
StartLimitBurst=10

[Service]
Type=notify
# Only the coordinator speaks to systemd; workers do not inherit the socket.
NotifyAccess=main
ExecStart={python} -P -m harness --root {root_word} run
ExecReload=/bin/kill -HUP $MAINPID
# The ping is sent after a completed tick of the main loop, never from a thread: a hung loop is restarted.
WatchdogSec=30
Restart=on-failure
RestartSec=1
# 2: used wrongly, 4: already running, 78: the configuration. Starting again would change nothing.
RestartPreventExitStatus=2 4 78

# A crash of the coordinator must not end the workers: the next one adopts them with their running attempts.
# `mixed` and `control-group` would end them. After `systemctl stop`, reap leaves no process.
KillMode=process
ExecStopPost={python} -P -m harness --root {root_word} reap --if-stopped
# The first TERM drains: running attempts may finish for up to drain_s of config.yaml.
TimeoutStopSec={stop_s}
TimeoutStartSec=120

{identity}UMask=0077
# One cgroup for each attempt, with limits, ended as a whole.
Delegate=cpu memory pids
# An agent that runs out of memory ends its attempt, not the service.
OOMPolicy=continue
LimitNOFILE=65536

# API keys: never Environment=, which everybody can read. A file for this user only, named in config.yaml
# (credentials.<name>.file), or:
#LoadCredential=anthropic.key:/etc/harness/anthropic.key
#MemoryMax=75%
#CPUWeight=50

# Hardening that agents can work with. Not here, with reasons: ProtectHome= hides their logins and your projects;
# PrivateTmp= would be taken away from the workers that outlive a crash; RestrictNamespaces=, ProtectProc= and
# ProtectKernelTunables= break the containment of attempts (user namespaces, a /proc of their own);
# ProtectControlGroups= breaks Delegate=; MemoryDenyWriteExecute= breaks node.
NoNewPrivileges=yes
ProtectSystem=full
ProtectHostname=yes
RestrictRealtime=yes
KeyringMode=private

[Install]
WantedBy={wanted_by}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """The values of one unit. `user` is empty for a unit of a user's own service manager (``systemctl --user``)."""

    root: Path
    python: Path = Path(sys.executable)
    user: str = ""
    group: str = ""
    drain_s: float = 600.0


def render(unit: Unit) -> str:
    """The text of the unit file. Raises UsageError for what systemd cannot take."""
    for what, value in (("root", str(unit.root)), ("python", str(unit.python))):
        if not value.startswith("/") or any(ord(c) < 32 for c in value):
            raise UsageError(
                f"the {what} of a service is an absolute path without control characters",
                where=repr(value),
                remedy="give the full path",
            )
    for what, value in (("user", unit.user), ("group", unit.group)):
        if value and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", value):
            raise UsageError(f"{value!r} is no name of a {what}", remedy=f"see: getent {what}s")
    identity = ""
    if unit.user:
        identity = f"User={unit.user}\n"
        if unit.group:
            identity += f"Group={unit.group}\n"
        if unit.root.parent == Path("/var/lib"):
            # systemd makes it and gives it to the user.
            identity += f"StateDirectory={_quoted(_plain(unit.root.name))}\nStateDirectoryMode=0750\n"
    identity += f"WorkingDirectory={_plain(str(unit.root))}\n"
    return TEMPLATE.format(
        root=_plain(str(unit.root)),
        root_listed=_quoted(_plain(str(unit.root))),
        root_word=_word(str(unit.root)),
        python=_word(str(unit.python)),
        stop_s=int(unit.drain_s) + _AFTER_DRAIN_S,
        identity=identity,
        wanted_by="multi-user.target" if unit.user else "default.target",
    )


def _plain(value: str) -> str:
    """A value outside of a command line: only specifiers (systemd.unit(5)) are special."""
    return value.replace("%", "%%")


def _word(value: str) -> str:
    """One word of a command line (systemd.service(5)), where variables are special, too."""
    return _quoted(_plain(value).replace("$", "$$"))


def _quoted(value: str) -> str:
    """One element of a list."""
    if re.fullmatch(r"[A-Za-z0-9_/.,:=@%$+-]+", value):
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def folder(*, system: bool) -> Path:
    """Where units of an administrator (`system`) or of the user live."""
    if system:
        return Path("/etc/systemd/system")
    home = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(home) / "systemd" / "user"


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """What `install` did, and what is left for a person to do."""

    path: Path
    changed: bool
    next_steps: tuple[str, ...]


def _known(unit: Unit) -> None:
    """Raises UsageError for a user or group that this machine does not have: systemd would refuse to start it."""
    for what, name, known in (("user", unit.user, pwd.getpwnam), ("group", unit.group, grp.getgrnam)):
        if not name or name.isdecimal():
            continue
        try:
            known(name)
        except KeyError:
            make = "useradd --system --create-home" if what == "user" else "groupadd --system"
            raise UsageError(f"there is no {what} {name!r} here", remedy=f"make it: {make} {name}") from None


def install(unit: Unit, *, name: str = NAME, into: Path | None = None, force: bool = False) -> Installed:
    """Write the unit file; starts and enables nothing.

    A unit with `user` goes to the system's service manager, one without to the user's. A file that differs is kept,
    with a ConflictError, unless `force`. The folder of ``/etc`` needs root: PermissionError becomes a UsageError.
    """
    if not _NAME.match(name):
        raise UsageError(f"{name!r} is no name of a unit", remedy="use letters, digits, - and _")
    system = bool(unit.user)
    if into is None:  # elsewhere it may be for another machine
        _known(unit)
    path = (into or folder(system=system)) / f"{name.removesuffix('.service')}.service"
    text = render(unit).encode()
    old = path.read_bytes() if path.exists() else None
    if old is not None and old != text and not force:
        raise ConflictError(
            "there is another unit of this name",
            where=path,
            remedy="look at it; then use --force to replace it, or --name to keep both",
        )
    if old != text:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, text, durable=True, mode=0o644)
        except PermissionError as e:
            raise UsageError(
                f"cannot write it: {e.strerror}",
                where=path,
                remedy="run it with sudo, or without --user for a unit of your own",
            ) from e
    ctl = "systemctl" if system else "systemctl --user"
    steps = [f"{ctl} daemon-reload", f"{ctl} enable --now {path.name}"]
    if not system:
        steps.append("loginctl enable-linger    # so that it runs while you are not logged in")
    return Installed(path=path, changed=old != text, next_steps=tuple(steps))
