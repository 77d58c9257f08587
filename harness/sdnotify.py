"""Telling the service manager how we are: sd_notify(3) without libsystemd, and nothing at all outside of a service."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import MutableMapping

_OURS = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class Notifier:
    """Sends to the socket of the service manager; without one every call does nothing. Never raises, never waits.

    `watchdog()` must come from the main loop after a completed tick, never from a thread: a loop that hangs must
    go silent.
    """

    def __init__(self, address: str = "", watchdog_s: float | None = None) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address  # abstract: unix(7)
        self.watchdog_s = watchdog_s
        """The service manager's patience in seconds, None when it does not watch. Ping at half of it at most."""

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str] = os.environ) -> Notifier:
        """Takes its variables out of `environ`, so that no child can speak in our name."""
        address, usec, pid = (environ.pop(name, "") for name in _OURS)
        watchdog_s = None
        if usec.isdecimal() and int(usec) > 0 and pid in ("", str(os.getpid())):
            watchdog_s = int(usec) / 1e6
        return cls(address if address.startswith(("/", "@")) else "", watchdog_s)

    @property
    def active(self) -> bool:
        return bool(self._address)

    def ready(self, status: str = "") -> None:
        """Start-up is finished."""
        self._send("READY=1", *_status(status))

    def status(self, text: str) -> None:
        """One line that ``systemctl status`` shows."""
        self._send(*_status(text))

    def watchdog(self) -> None:
        """A tick was completed."""
        self._send("WATCHDOG=1")

    def reloading(self) -> None:
        """The configuration is being read again; `ready` must follow."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self, status: str = "") -> None:
        self._send("STOPPING=1", *_status(status))

    def extend(self, seconds: float) -> None:
        """Start-up, a stop or a tick will take up to `seconds` from now; repeat it while that stays true."""
        self._send(f"EXTEND_TIMEOUT_USEC={max(int(seconds * 1e6), 1)}")

    def _send(self, *assignments: str) -> None:
        if not self._address or not assignments:
            return
        # A gone or full socket must not stop the daemon.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.connect(self._address)
            sender.send("\n".join(assignments).encode("utf-8", "replace"))


def _status(text: str) -> tuple[str, ...]:
    return (f"STATUS={' '.join(text.split())}",) if text else ()
