"""The wrapper around a program that must not outlive whoever started it, where a jail would be too much: git.

A program of its own, run by an isolated interpreter as ``leash PARENT COMMAND`` (`argv`). When its parent dies (SIGKILL,
out of memory) the kernel tells it (PR_SET_PDEATHSIG), and it kills its process group: git does not always see that its
own parent is gone, and its helpers wait for a network. Otherwise it ends as the command did, and passes nothing on:
whoever stops the command signals the group.

PR_SET_PDEATHSIG follows the thread: the thread that has started it must wait for it.

`_signal` is what `signal` is made of, without the enums, which take as long to make as an interpreter takes to start.
"""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]
import ctypes
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1
_ORPHANED = signal.SIGUSR2


def argv(command: Sequence[str]) -> list[str]:
    """The command on a leash, to be started as leader of a process group by this very process."""
    return [sys.executable, "-I", "-S", os.path.abspath(__file__), str(os.getpid()), *command]


def main(parent: int, command: list[str]) -> None:
    """Does not return."""
    signal.signal(_ORPHANED, lambda *_: os.killpg(0, signal.SIGKILL))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)  # for the command, which has the usual handlers after its exec
    _die_with_parent(_ORPHANED, parent)
    own = os.getpid()
    pid = os.fork()
    if pid == 0:
        _die_with_parent(signal.SIGKILL, own)
        for ignored in (signal.SIGPIPE, signal.SIGXFSZ):  # by Python, and inherited
            signal.signal(ignored, signal.SIG_DFL)
        try:
            os.execvp(command[0], command)  # noqa: S606 - the command was given as a list, by our own runner
        except OSError as e:
            os.write(2, f"{command[0]}: {e.strerror}\n".encode())
            os._exit(127)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        told = os.WTERMSIG(status)
        if told != signal.SIGKILL:
            signal.signal(told, signal.SIG_DFL)
        os.kill(own, told)
    os._exit(os.WEXITSTATUS(status))


def _die_with_parent(number: int, parent: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(number))
    if os.getppid() != parent:  # it died in between
        os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
