"""The pool as a whole: pause and resume claiming, let the coordinator drain or stop.

Wishes are touch-files in state/control/, which the coordinator and the workers read; pausing works without a coordinator.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from harness import atomicfs
from harness.control.desk import Desk
from harness.errors import ConflictError, NotFoundError, TryAgainError
from harness.logs import Event
from harness.procs import ProcessId

PAUSE = "pause"
_SLOT = re.compile(r"[a-z0-9][a-z0-9-]{0,60}\Z")


def pause(desk: Desk, *, agent: str = "", project: str = "") -> tuple[str, ...]:
    """From now on nothing new is claimed (by this slot; of this project). Running attempts go on.

    -> all pauses that hold now, as `paused` names them. Raises NotFoundError for an unknown slot or project.
    """
    name = _name(desk, agent, project)
    atomicfs.ensure_dir(desk.layout.control)
    (desk.layout.control / name).touch()
    atomicfs.fsync_dir(desk.layout.control)
    desk.emit(Event.PAUSED, what=_words(name))
    _wake(desk)
    return paused(desk)


def resume(desk: Desk, *, agent: str = "", project: str = "") -> tuple[str, ...]:
    """Take a pause back; without arguments every pause. -> the pauses that still hold."""
    names = [_name(desk, agent, project)] if agent or project else list(_files(desk))
    for name in names:
        (desk.layout.control / name).unlink(missing_ok=True)
        desk.emit(Event.RESUMED, what=_words(name))
    atomicfs.fsync_dir(desk.layout.control)
    _wake(desk)
    return paused(desk)


def lift(desk: Desk, credential: str) -> bool:
    """Forget the limit of a credential: what waits for it may start. -> whether there was one.

    Raises NotFoundError for a credential that has none and that config.yaml does not know.
    """
    from harness.limits import Limits, limiter_of

    known = {limiter_of(desk.config, agent) for agent in desk.config.agents}
    limits = Limits(desk.layout, desk.clock)
    if credential not in known and limits.read(credential) is None:
        raise NotFoundError(
            f"there is no credential {credential!r}", remedy=f"there is: {', '.join(sorted(known)) or 'none'}"
        )
    lifted = limits.over(credential)
    if lifted:
        desk.emit(Event.LIMIT_OVER, credential=credential)
    _wake(desk)
    return lifted


def paused(desk: Desk) -> tuple[str, ...]:
    """What is paused: ``everything``, ``agent-1``, ``project app``."""
    return tuple(_words(name) for name in _files(desk))


def drain(desk: Desk) -> ProcessId:
    """The coordinator ends when the running attempts have ended (at most `drain_s` of config.yaml). -> its process.

    Raises ConflictError when none runs.
    """
    return _ask(desk, "drain")


def stop(desk: Desk) -> ProcessId:
    """The coordinator and all workers end now; attempts are released, their work is salvaged. Raises ConflictError."""
    return _ask(desk, "stop")


def await_end(process: ProcessId, timeout_s: float | None) -> None:
    """Until the process has ended. Raises TryAgainError when the time is over."""
    if not process.wait(365 * 86_400.0 if timeout_s is None else timeout_s):
        raise TryAgainError(
            f"the coordinator (pid {process.pid}) still works", remedy="see: harnessctl status"
        )


def _ask(desk: Desk, what: str) -> ProcessId:
    process = desk.coordinator()
    if process is None:
        raise ConflictError(
            "no coordinator runs",
            where=desk.layout.root,
            remedy="if workers are left over, this ends them: harnessctl reap",
        )
    (desk.layout.control / what).touch()
    desk.ring()
    return process


def _wake(desk: Desk) -> None:
    """The coordinator, and as many workers as there may be: each looks for itself."""
    desk.ring()
    for _ in range(sum(1 for _ in (desk.layout.run / "agents").glob("*/status.json"))):
        desk.ring(work=True)


def _name(desk: Desk, agent: str, project: str) -> str:
    if project:
        if project not in desk.config.projects:
            known = ", ".join(desk.config.projects) or "none"
            raise NotFoundError(f"there is no project {project!r}", remedy=f"there is: {known}")
        return f"{PAUSE}.project.{project}"
    if agent:
        if not _SLOT.match(agent) or not desk.layout.agent(agent).is_dir():
            known = ", ".join(sorted(x.name for x in (desk.layout.run / "agents").glob("*/"))) or "none yet"
            raise NotFoundError(f"there is no agent {agent!r}", remedy=f"there is: {known}")
        return f"{PAUSE}.{agent}"
    return PAUSE


def _files(desk: Desk) -> Iterator[str]:
    names = sorted(path.name for path in desk.layout.control.glob(f"{PAUSE}*"))
    return (name for name in names if name == PAUSE or name.startswith(f"{PAUSE}."))


def _words(name: str) -> str:
    rest = name.removeprefix(PAUSE).removeprefix(".")
    return f"project {rest.removeprefix('project.')}" if rest.startswith("project.") else rest or "everything"
