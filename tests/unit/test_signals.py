"""What signals ask of a process of ours. In a process of its own: handlers are process-wide."""

from __future__ import annotations

import signal
import subprocess

import pytest

from harness.signals import STOP_NOW
from tests.support import line, python

LISTENS = """
import select, sys
from harness.signals import Signals
signals = Signals()
print("ready", flush=True)
while True:
    select.select([signals.wake_fd], [], [])
    signals.drain()
    print(signals.stops, signals.now, signals.reload, signals.dump, flush=True)
"""


@pytest.mark.parametrize(
    ("numbers", "seen"),
    [
        ([signal.SIGTERM], "1 False False False"),
        ([signal.SIGINT], "1 False False False"),
        ([signal.SIGTERM, signal.SIGINT], "2 False False False"),
        ([STOP_NOW], "1 True False False"),
        ([STOP_NOW, STOP_NOW], "2 True False False"),
        ([signal.SIGHUP], "0 False True False"),
        ([signal.SIGUSR1], "0 False False True"),
        ([signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1], "1 False True True"),
    ],
    ids=lambda x: " ".join(n.name for n in x) if isinstance(x, list) else "",
)
def test_signals_are_counted_and_wake_who_waits(numbers: list[signal.Signals], seen: str) -> None:
    with python(LISTENS) as process:
        assert line(process) == "ready"
        said = ""
        for number in numbers:
            process.send_signal(number)
            said = line(process)
        assert said == seen


def test_a_storm_of_signals_neither_blocks_nor_kills() -> None:
    with python(LISTENS) as process:
        assert line(process) == "ready"
        for _ in range(2000):
            process.send_signal(signal.SIGUSR1)
        assert line(process) == "0 False False True"
        process.send_signal(signal.SIGTERM)
        while not line(process).startswith("1 "):
            assert process.poll() is None


def test_a_pipe_that_was_drained_wakes_nobody() -> None:
    code = """
import os, select, signal
from harness.signals import Signals
signals = Signals()
os.kill(os.getpid(), signal.SIGUSR1)
looks = [bool(select.select([signals.wake_fd], [], [], 0)[0])]
signals.drain()
signals.drain()
print(*looks, bool(select.select([signals.wake_fd], [], [], 0)[0]))
"""
    with python(code) as process:
        assert line(process) == "True False"


def test_the_pipe_is_not_inherited() -> None:
    code = """
import subprocess, sys
from harness.signals import Signals
argv = [sys.executable, "-c", f"import os; os.fstat({Signals().wake_fd})"]
print(subprocess.run(argv, close_fds=False, stderr=subprocess.DEVNULL).returncode)
"""
    with python(code) as process:
        assert line(process) == "1"
        assert process.wait(20) == 0
    assert isinstance(process, subprocess.Popen)
