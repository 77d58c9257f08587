"""The one place where anything that can block is run: git, setup, gates, agents.

A worker's loop writes its heartbeat between two system calls that never block, except here; so here is where the
heart beats while something runs. A command gets a complete environment, a session of its own, its output goes into
files (never through us), and it ends by itself or by a ladder: each signal of `stop` with its grace, then
SIGKILL to everything that it has started. When `run` returns, none of it is left, or `Ended.error` says so.

Jailed commands are spawned from the main thread only: the jail dies with the *thread* that has spawned it.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import select
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from harness import containment as containments
from harness import leash, procs
from harness.activity import Activity
from harness.clock import Clock
from harness.containment import Containment, Jail
from harness.dataclass import dataclass

LOOK_S = 1.0
"""How often the size of the output is looked at; at first, and where it is kept in memory, more often."""
MEMORY_LOOK_S = 0.1
FIRST_LOOK_S = 0.02
AWAY_S = 30.0
"""So much later than wanted we wake up only when the machine was suspended, or we were stopped."""
GONE_S = 30.0
"""How long a killed process may take to be gone (uninterruptible I/O) before we give up on it."""
MAX_OUTPUT_BYTES = 256 * 1024 * 1024


class EndReason(StrEnum):
    """Why a command is no longer running."""

    EXITED = "exited"  # by itself, or by a signal that was not ours
    TIMED_OUT = "timed_out"  # `timeout_s` elapsed
    STALLED = "stalled"  # silent and inactive for `stall_s`
    STOPPED = "stopped"  # beat() or the watcher asked for it
    TOO_MUCH_OUTPUT = "too_much_output"  # more than `max_output_bytes`
    NOT_STARTED = "not_started"  # nothing was run; `error` says why


class Watcher(Protocol):
    """Looks on while a command runs: what it reads in the output can end it, or make its silence no stall."""

    def look(self) -> str | None:
        """Called once in a second or so, and once when it has ended. -> why it is to be stopped, or None."""
        ...

    def patient_s(self) -> float:
        """Until when, by the monotonic clock, neither silence nor idleness is a stall."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What to run. Nothing is inherited: `env` is the whole environment, no file but the three standard ones is open."""

    argv: Sequence[str]
    cwd: Path
    env: Mapping[str, str]
    stdin: bytes | Path | None = None
    """Bytes, a file, or nothing to read."""
    stdout: Path | None = None
    """Appended to, made with mode 0600; None: kept in memory and returned."""
    stderr: Path | None = None
    """As `stdout`; may be the same file."""
    timeout_s: float | None = None
    stall_s: float | None = None
    watch: Path | None = None
    """The folder where a change counts as a sign of life."""
    stop: Sequence[tuple[int, float]] = ((signal.SIGINT, 5.0), (signal.SIGTERM, 5.0))
    """(signal, seconds of grace) one after the other, to the process group; SIGKILL follows."""
    jail: Jail | None = None
    far: bool = False
    """It may wait for what is not on this machine. Without a jail such a command needs a leash, or might outlive us."""
    watcher: Watcher | None = None
    max_output_bytes: int = MAX_OUTPUT_BYTES
    """stdout and stderr together; looked at now and then, so a fast writer gets further."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How it ended. Of `exit_code` and `signal` at most one is set; none when it was not started or not seen to end."""

    reason: EndReason
    exit_code: int | None = None
    signal: int | None = None
    stdout: bytes = b""
    """At most `max_output_bytes`, and only what did not go to a file."""
    stderr: bytes = b""
    duration_s: float = 0.0
    survivors: int = 0
    """Processes of a jailed command that were still alive when it had ended, and were killed."""
    stop_reason: str = ""
    """What beat() answered, or which limit was passed."""
    error: str = ""

    @property
    def ok(self) -> bool:
        """It ended by itself, with exit code 0."""
        return self.reason is EndReason.EXITED and self.exit_code == 0


class Runner:
    """Runs one command at a time. While it runs, `beat` is called every `beat_s` and whenever `wake_fd` is readable.

    What `beat` returns, if anything, is the reason for which the command is stopped; what it raises ends the command
    at once and is passed on. `wake_fd` (of `signal.set_wakeup_fd`, a doorbell) is made non-blocking and emptied.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        containment: Containment,
        beat: Callable[[], str | None] = lambda: None,
        beat_s: float = 5.0,
        wake_fd: int | None = None,
        leashed: bool = False,
    ) -> None:
        """`leashed`: commands that are `far` end when we are killed, too (`leash`); each takes some 20 ms longer."""
        self.clock = clock
        self.containment = containment
        self.beat = beat
        self.beat_s = beat_s
        self.wake_fd = wake_fd
        self.leashed = leashed
        self.beat_at = -math.inf
        """When the next beat is due; kept between commands, so that many short ones do not beat each."""
        self.away_s = 0.0
        """How long this process did not run while it watched (a machine that was suspended). Counts for no limit."""
        if wake_fd is not None:
            os.set_blocking(wake_fd, False)

    def run(self, command: Command) -> Ended:
        """Runs it to its end. Never raises for what the command does or is; NOT_STARTED when it cannot be run."""
        if command.jail is not None and threading.current_thread() is not threading.main_thread():
            raise RuntimeError(
                "a jailed command is spawned from the main thread: PR_SET_PDEATHSIG follows the thread"
            )
        with contextlib.ExitStack() as stack:
            try:
                run = _Run(self, command, stack)
            except OSError as e:
                return Ended(reason=EndReason.NOT_STARTED, error=_spawn_error(command, e))
            try:
                run.watch_over()
            finally:
                run.end()
            if command.watcher is not None:
                command.watcher.look()
            return run.ended()


class _Stop:
    """A stop that has begun: which signal comes next, and when."""

    def __init__(self, reason: EndReason, why: str, steps: Sequence[tuple[int, float]]) -> None:
        self.reason = reason
        self.why = why
        self.next_s = -math.inf
        self.steps: Iterator[tuple[int, float]] = iter((*steps, (signal.SIGKILL, GONE_S)))


class _Run:
    """One command from its start to its end."""

    def __init__(self, runner: Runner, command: Command, stack: contextlib.ExitStack) -> None:
        self._clock = runner.clock
        self._runner = runner
        self._command = command
        self._stop: _Stop | None = None
        self._status = b""
        self._status_fd: int | None = None
        self._gone = False
        self._given_up = False
        self._survivors = 0
        self._in = stack.enter_context(_input(command.stdin))
        self._out = stack.enter_context(_output(command.stdout, "stdout"))
        self._err = stack.enter_context(_output(command.stderr, "stderr"))
        self._before = self._sizes()
        # Where the jail is a subreaper only, and is killed, its orphans become our children: those that are new.
        self._children = _children() if command.jail and not runner.containment.namespaces else None
        self._started_s = self._clock.monotonic()
        self._away_s = runner.away_s
        self._process = self._spawn(stack)
        try:
            self._pidfd = os.pidfd_open(self._process.pid)
            stack.callback(os.close, self._pidfd)
        except BaseException:
            self.end()
            raise
        self._activity: Activity | None = None
        if command.stall_s is not None:
            self._activity = Activity(
                clock=self._clock, stall_s=command.stall_s, pid=self._process.pid, watch=command.watch
            )

    def _spawn(self, stack: contextlib.ExitStack) -> subprocess.Popen[bytes]:
        command, env, argv = self._command, dict(self._command.env), list(self._command.argv)
        tell: tuple[int, ...] = ()
        if command.jail is not None:
            self._status_fd, writer = os.pipe()
            stack.callback(os.close, self._status_fd)
            os.set_blocking(self._status_fd, False)
            tell = (writer,)
            env[procs.MARK] = command.jail.mark
            if not self._runner.containment.namespaces:
                containments.adopt_orphans()
            argv = self._runner.containment.wrap(argv, command.jail, status=writer)
        elif command.far and self._runner.leashed:
            argv = leash.argv(argv)
        try:
            return subprocess.Popen(
                argv,
                cwd=command.cwd,
                env=env,
                stdin=self._in,
                stdout=self._out,
                stderr=self._err,
                pass_fds=tell,
                start_new_session=True,
            )
        finally:
            for fd in tell:
                os.close(fd)

    # --- while it runs

    def watch_over(self) -> None:
        """Returns when the main process has ended, or cannot be ended."""
        poller = select.poll()
        poller.register(self._pidfd, select.POLLIN)
        wake_fd = self._runner.wake_fd
        if wake_fd is not None:
            poller.register(wake_fd, select.POLLIN)
        look_s = FIRST_LOOK_S
        look_at = self._started_s + look_s
        awaited = math.inf
        while not self._given_up:
            now = self._clock.monotonic()
            if now - awaited > AWAY_S:
                self._runner.away_s += now - awaited
            if now >= self._runner.beat_at:
                self._beat(now)
            if now >= look_at:
                look_s = min(2 * look_s, self._look_s())
                look_at = now + look_s
                self._look()
            self._climb()
            until = min(
                self._runner.beat_at,
                look_at,
                self._deadline_s(),
                self._stop.next_s if self._stop else math.inf,
            )
            now = self._clock.monotonic()
            awaited = max(until, now)
            timeout_ms = math.ceil((awaited - now) * 1000)
            ready = dict(poller.poll(timeout_ms))
            if self._pidfd in ready:
                self._gone = True
                return
            if wake_fd is not None and wake_fd in ready:
                if not _drain(wake_fd):
                    poller.unregister(wake_fd)  # its other end is closed: it would be readable for ever
                self._runner.beat_at = -math.inf

    def _beat(self, now: float) -> None:
        self._runner.beat_at = now + self._runner.beat_s
        why = self._runner.beat()
        if why is not None and self._stop is None:
            self._begin(EndReason.STOPPED, why)

    def _look_s(self) -> float:
        in_files = self._command.stdout is not None and self._command.stderr is not None
        limit_s = LOOK_S if in_files else MEMORY_LOOK_S
        return min(limit_s, self._command.stall_s / 4) if self._command.stall_s else limit_s

    def _look(self) -> None:
        """At the limits; the deadline is looked at in every turn, because it sets the timeout of poll."""
        command = self._command
        if self._stop is not None:
            return
        written = self._written()
        if written > command.max_output_bytes:
            self._begin(EndReason.TOO_MUCH_OUTPUT, f"more than {command.max_output_bytes} bytes of output")
            return
        watcher = command.watcher
        if watcher is not None and (why := watcher.look()) is not None:
            self._begin(EndReason.STOPPED, why)
        elif (
            self._activity is not None
            and self._activity.stalled(written)
            and (watcher is None or watcher.patient_s() <= self._clock.monotonic())
        ):
            self._begin(EndReason.STALLED, f"no sign of life for {command.stall_s:g} s")

    def _deadline_s(self) -> float:
        if self._command.timeout_s is None or self._stop is not None:
            return math.inf
        away_s = self._runner.away_s - self._away_s
        return self._started_s + self._command.timeout_s + away_s

    def _begin(self, reason: EndReason, why: str) -> None:
        self._stop = _Stop(reason, why, self._command.stop)

    def _climb(self) -> None:
        """The next rung of the ladder, when its time has come."""
        now = self._clock.monotonic()
        if now >= self._deadline_s():
            self._begin(EndReason.TIMED_OUT, f"took longer than {self._command.timeout_s:g} s")
        if self._stop is None or now < self._stop.next_s:
            return
        step = next(self._stop.steps, None)
        if step is None:
            self._given_up = True
            return
        number, grace_s = step
        self._stop.next_s = now + grace_s
        if number == signal.SIGKILL:
            self._kill()
        elif self._command.jail is not None:
            self._process.send_signal(number)  # the jail passes it on to the command's process group
        else:
            self._signal_group(number)

    def _kill(self) -> None:
        if self._command.jail is not None:
            self._runner.containment.kill(self._command.jail.mark)
        self._signal_group(signal.SIGKILL)

    def _signal_group(self, number: int) -> None:
        """Before we have waited for its leader, the number of a group cannot be reused."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)

    # --- after it

    def end(self) -> None:
        """Whatever happened: nothing of the command is left, and the main process is reaped. Can be repeated."""
        self._read_status()
        jail = self._command.jail
        proved = (
            self._gone and self._status.startswith(b"ended ") and bool(self._runner.containment.namespaces)
        )
        if jail is not None and not proved:
            self._survivors += self._runner.containment.kill(jail.mark)
        self._signal_group(signal.SIGKILL)
        try:
            self._process.wait(None if self._gone else GONE_S)
        except subprocess.TimeoutExpired:
            self._given_up = True
        if jail is not None:
            if self._children is not None:
                self._survivors += containments.kill_children(_children() - self._children)
            self._runner.containment.release(jail.mark)

    def _read_status(self) -> None:
        if self._status_fd is not None:
            with contextlib.suppress(BlockingIOError):
                while piece := os.read(self._status_fd, 4096):
                    self._status += piece

    def ended(self) -> Ended:
        command = self._command
        duration_s = self._clock.monotonic() - self._started_s
        kind, _, rest = self._status.partition(b"\n")[0].decode(errors="replace").partition(" ")
        if kind == "error":
            return Ended(
                reason=EndReason.NOT_STARTED, error=rest, duration_s=duration_s, stderr=self._stderr()
            )
        code = self._process.returncode
        if kind == "ended":
            code, told = (int(word) for word in rest.split())
            self._survivors += told
        reason = self._stop.reason if self._stop else EndReason.EXITED
        why = self._stop.why if self._stop else ""
        if reason is EndReason.EXITED and self._written() > command.max_output_bytes:
            reason = EndReason.TOO_MUCH_OUTPUT
            why = f"more than {command.max_output_bytes} bytes of output"
        return Ended(
            reason=reason,
            exit_code=code if code is not None and code >= 0 else None,
            signal=-code if code is not None and code < 0 else None,
            stdout=_captured(self._out, command.max_output_bytes) if command.stdout is None else b"",
            stderr=self._stderr(),
            duration_s=duration_s,
            survivors=self._survivors,
            stop_reason=why,
            error=f"process {self._process.pid} does not die of SIGKILL" if self._given_up else "",
        )

    def _stderr(self) -> bytes:
        return _captured(self._err, self._command.max_output_bytes) if self._command.stderr is None else b""

    def _sizes(self) -> int:
        """Bytes in both files; one file that is given twice counts once."""
        files = {(seen.st_dev, seen.st_ino): seen.st_size for seen in map(os.fstat, (self._out, self._err))}
        return sum(files.values())

    def _written(self) -> int:
        return max(0, self._sizes() - self._before)


@contextlib.contextmanager
def _input(source: bytes | Path | None) -> Iterator[int]:
    """Bytes go into an anonymous file: a command that reads late, or never, does not block us."""
    if isinstance(source, bytes) and source:
        fd = os.memfd_create("stdin")
        try:
            with open(fd, "wb", closefd=False) as f:
                f.write(source)
            os.lseek(fd, 0, os.SEEK_SET)
        except BaseException:
            os.close(fd)
            raise
    else:
        fd = os.open(source or os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _output(path: Path | None, name: str) -> Iterator[int]:
    """An anonymous file in memory, or one that is only appended to: what several writers write never overlaps."""
    if path is None:
        fd = os.memfd_create(name)
        fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND)
    else:
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)


def _captured(fd: int, limit: int) -> bytes:
    return os.pread(fd, min(limit, os.fstat(fd).st_size), 0)


def _drain(fd: int) -> bool:
    """Empties it; False at end of file."""
    try:
        while piece := os.read(fd, 4096):
            if len(piece) < 4096:
                return True
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _children() -> frozenset[int]:
    return frozenset(pid for pid, seen in procs.snapshot().items() if seen.ppid == os.getpid())


def _spawn_error(command: Command, e: OSError) -> str:
    name = e.filename or command.argv[0]
    if isinstance(name, bytes):
        name = os.fsdecode(name)
    return f"cannot run {command.argv[0]!r}: {name}: {e.strerror}"
