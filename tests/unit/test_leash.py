"""A program on a leash: as if it were run without one, and it ends with its parent."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from harness import procs
from harness.clock import SystemClock
from harness.containment import Containment
from harness.procs import ProcessId
from harness.runner import Command, Ended, EndReason, Runner
from tests.support import line, python, until

PARENT = """
import subprocess, sys
from harness import leash
argv = ["sh", "-c", "trap '' TERM; sleep 1000 & echo $$ $!; wait; sleep 1000"]
process = subprocess.Popen(leash.argv(argv), start_new_session=True)
sys.stdin.read()
"""


def run(script: str, cwd: Path, **settings: object) -> Ended:
    runner = Runner(clock=SystemClock(), containment=Containment(), leashed=True)
    env = {"PATH": os.environ["PATH"], "A": "b"}
    command = Command(argv=["sh", "-c", script], cwd=cwd, env=env, far=True, **settings)  # type: ignore[arg-type]
    return runner.run(command)


def test_output_input_environment_folder_and_exit_code_are_those_of_the_command(tmp_path: Path) -> None:
    ended = run('pwd; echo "$A"; cat; echo no >&2; exit 7', tmp_path, stdin=b"x\n")
    assert (ended.exit_code, ended.stdout, ended.stderr) == (7, f"{tmp_path}\nb\nx\n".encode(), b"no\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGPIPE], ids=lambda n: n.name)
def test_death_by_a_signal_is_told(tmp_path: Path, number: signal.Signals) -> None:
    assert run(f"kill -{int(number)} $$", tmp_path).signal == number


def test_a_command_that_does_not_exist_says_so(tmp_path: Path) -> None:
    runner = Runner(clock=SystemClock(), containment=Containment(), leashed=True)
    ended = runner.run(Command(argv=["no-such-program"], cwd=tmp_path, env={"PATH": "/bin"}, far=True))
    assert ended.exit_code == 127
    assert b"no-such-program: No such file" in ended.stderr


@pytest.mark.parametrize("trap", ["", "trap 'exit 3' TERM; "], ids=["it dies", "it ends in its own way"])
def test_the_ladder_reaches_the_command(tmp_path: Path, trap: str) -> None:
    script = f"{trap}while :; do sleep 0.01; done"
    ended = run(script, tmp_path, timeout_s=0.5, stop=((signal.SIGTERM, 10.0),))
    assert ended.reason is EndReason.TIMED_OUT
    assert (ended.signal, ended.exit_code) == ((None, 3) if trap else (signal.SIGTERM, None))


def test_what_cannot_wait_for_others_needs_no_leash(tmp_path: Path) -> None:
    runner = Runner(clock=SystemClock(), containment=Containment(), leashed=True)
    told = {}
    for far in (True, False):
        command = Command(
            argv=["sh", "-c", "echo $PPID"], cwd=tmp_path, env={"PATH": "/bin:/usr/bin"}, far=far
        )
        told[far] = int(runner.run(command).stdout) == os.getpid()
    assert told == {True: False, False: True}


def test_everything_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    with python(PARENT, cwd=tmp_path) as parent:
        found = [ProcessId.of(int(word)) for word in line(parent).split()]
        assert all(found)
        parent.kill()
        until(lambda: not any(one and one.alive() for one in found), what="git and its helper have ended")


def test_everything_ends_when_the_leash_itself_is_killed(tmp_path: Path) -> None:
    with python(PARENT, cwd=tmp_path) as parent:
        command, helper = (ProcessId.of(int(word)) for word in line(parent).split())
        assert command
        assert helper
        leash = int(Path(f"/proc/{command.pid}/stat").read_bytes().rpartition(b")")[2].split()[1])
        try:
            os.kill(leash, signal.SIGKILL)
            assert command.wait(10)
        finally:
            for one in (command, helper):
                procs.signal(one, signal.SIGKILL)
