"""No process of an attempt survives its end, whatever it does to hide: real processes, each kind of containment alone.

A process in a namespace has another pid inside, and a rewritten title names nothing. So each one that tries to escape
holds a lock on a file, which the kernel releases with its life: a free lock is the proof of its death.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import cgroups, jail, mechanisms, procs
from harness.clock import SystemClock
from harness.config import Sandbox
from harness.containment import Containment, Jail, Kind
from harness.errors import HarnessError
from harness.runner import Command, EndReason, Runner
from tests.support import line, python, running, until

ENV = {"PATH": os.environ.get("PATH", os.defpath)}

ESCAPE = """
import os, sys, time
trick, lock = sys.argv[1], sys.argv[2]
if os.fork():
    while not os.path.exists(lock + ".ready"):
        time.sleep(0.001)
    if "stay" in trick:
        time.sleep(1000)
    sys.exit(0)
if "setsid" in trick:
    os.setsid()
if "double" in trick and os.fork():
    os._exit(0)
if "deaf" in trick or "nohup" in trick:
    import signal
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
if "chdir" in trick:
    os.chdir("/")
if "closefds" in trick:
    os.closerange(0, 1024)
if "title" in trick:
    import ctypes
    ctypes.CDLL(None).prctl(15, b"kworker/0:1", 0, 0, 0)
hold = '''
import fcntl, sys, time
f = open(sys.argv[1], "w")
fcntl.flock(f, fcntl.LOCK_EX)
open(sys.argv[1] + ".ready", "w").close()
time.sleep(1000)
'''
argv = ["[kworker/0:1]" if "title" in trick else sys.executable, "-S", "-c", hold, lock]
home = {"PYTHONHOME": sys.base_prefix}  # a Python with a false name does not find its library by itself
os.execve(sys.executable, argv, home if "env-i" in trick else os.environ | home)
"""

TRICKS = [
    "child",
    "setsid",
    "setsid double",
    "setsid env-i",
    "setsid title",
    "deaf",
    "setsid closefds",
    "setsid nohup",
    "setsid chdir",
    "setsid double env-i title deaf closefds nohup chdir",
]

WORKER = """
import sys
from pathlib import Path
from harness.clock import SystemClock
from harness.containment import Containment, Jail, Kind
from harness.config import Sandbox
from harness.runner import Command, Runner

kind, mark, folder, *argv = sys.argv[1:]
containment = Containment.probe(Sandbox.NONE, only=Kind(kind))
print("probed", flush=True)
runner = Runner(clock=SystemClock(), containment=containment)
runner.run(Command(argv=argv, cwd=Path(folder), env={"PATH": "/usr/bin:/bin"}, jail=Jail(mark=mark)))
"""


@pytest.fixture(scope="module", params=list(Kind))
def contained(request: pytest.FixtureRequest) -> Containment:
    """One kind alone."""
    found = Containment.probe(Sandbox.NONE, only=request.param)
    if found.kind is not request.param:
        pytest.skip(f"{request.param} is not available here: {found.describe()}")
    return found


@pytest.fixture
def mark() -> Iterator[str]:
    """Unique on this host; afterwards nothing of it is left, whatever the test did."""
    name = f"test-{os.getpid()}-{os.urandom(4).hex()}.1"
    yield name
    Containment.probe(Sandbox.NONE).kill(name)


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "lock"


def held(lock: Path) -> bool:
    with lock.open("w") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def ready(lock: Path) -> bool:
    return lock.with_name(lock.name + ".ready").exists()


def escape(trick: str, lock: Path, mark: str) -> Command:
    return Command(
        argv=[sys.executable, "-S", "-c", ESCAPE, trick, str(lock)],
        cwd=lock.parent,
        env=ENV,
        jail=Jail(mark=mark),
    )


def working(contained: Containment, trick: str, lock: Path, mark: str) -> list[str]:
    """The argv of a worker that runs the escape."""
    inner = [sys.executable, "-S", "-c", ESCAPE, trick, str(lock)]
    return [sys.executable, "-P", "-c", WORKER, contained.kind, mark, str(lock.parent), *inner]


@pytest.mark.parametrize("trick", TRICKS)
def test_nothing_survives_the_end_of_the_command(
    contained: Containment, trick: str, lock: Path, mark: str
) -> None:
    ended = Runner(clock=SystemClock(), containment=contained).run(escape(trick, lock, mark))
    assert ended.reason is EndReason.EXITED, ended
    assert ended.exit_code == 0
    assert not held(lock), "alive when run() had returned"
    assert ended.survivors == 1
    assert contained.empty(mark)


@pytest.mark.parametrize("trick", ["child", "setsid double", TRICKS[-1]])
def test_nothing_survives_a_stop_by_force(contained: Containment, trick: str, lock: Path, mark: str) -> None:
    runner = Runner(
        clock=SystemClock(),
        containment=contained,
        beat=lambda: "stopped" if ready(lock) else None,
        beat_s=0.01,
    )
    command = escape(trick + " stay", lock, mark)
    ended = runner.run(Command(argv=command.argv, cwd=command.cwd, env=ENV, jail=command.jail, stop=()))
    assert ended.reason is EndReason.STOPPED
    assert not held(lock)


@pytest.mark.parametrize("trick", ["child", TRICKS[-1]])
def test_nothing_survives_a_worker_that_was_killed(
    contained: Containment, trick: str, lock: Path, mark: str
) -> None:
    """Nobody else has to do anything: the jail notices by itself."""
    with running(working(contained, trick + " stay", lock, mark)) as worker:
        until(lambda: ready(lock), what="agent")
        os.kill(worker.pid, signal.SIGKILL)
        until(lambda: not held(lock), what="dead with its worker")


@pytest.mark.parametrize("trick", ["child", "setsid double env-i title deaf closefds nohup chdir"])
def test_another_process_ends_the_attempt_of_a_worker_that_hangs(
    contained: Containment, trick: str, lock: Path, mark: str
) -> None:
    with running(working(contained, trick + " stay", lock, mark)) as worker:
        until(lambda: ready(lock), what="agent")
        os.kill(worker.pid, signal.SIGSTOP)
        coordinator = Containment()  # it has not probed: what it needs it finds
        assert not coordinator.empty(mark)
        assert coordinator.kill(mark) >= 2
        assert not held(lock)
        assert coordinator.empty(mark)
        assert coordinator.kill(mark) == 0
        assert procs.ProcessId.of(worker.pid) is not None, "only the attempt was killed"
        os.kill(worker.pid, signal.SIGCONT)
        worker.wait(30)
        assert worker.returncode == 0, "the worker has seen its agent end, and went on"


def test_a_fork_storm_is_ended(contained: Containment, lock: Path, mark: str) -> None:
    storm = "f() { while :; do (sleep 0.01; : > ready) & sleep 0.005; done; }; f & f & f & setsid sh -c 'sleep 1000 & sleep 1000' & sleep 1000"
    runner = Runner(
        clock=SystemClock(),
        containment=contained,
        beat=lambda: "stop" if (lock.parent / "ready").exists() else None,
        beat_s=0.01,
    )
    runner.run(Command(argv=["sh", "-c", storm], cwd=lock.parent, env=ENV, jail=Jail(mark=mark), stop=()))
    assert contained.empty(mark, below=[lock.parent])


def test_signals_of_the_ladder_reach_the_command(contained: Containment, tmp_path: Path, mark: str) -> None:
    script = "trap 'echo interrupted > got; exit 7' INT; : > ready; while :; do sleep 0.01; done"
    runner = Runner(
        clock=SystemClock(),
        containment=contained,
        beat=lambda: "stop" if (tmp_path / "ready").exists() else None,
        beat_s=0.01,
    )
    stop = ((signal.SIGINT, 30.0),)
    ended = runner.run(
        Command(argv=["sh", "-c", script], cwd=tmp_path, env=ENV, jail=Jail(mark=mark), stop=stop)
    )
    assert (ended.reason, ended.exit_code) == (EndReason.STOPPED, 7)
    assert (tmp_path / "got").read_text() == "interrupted\n"


@pytest.mark.parametrize(("script", "code", "number"), [("exit 5", 5, None), ("kill -TERM $$", None, 15)])
def test_the_end_of_the_command_is_told_as_it_was(
    contained: Containment, tmp_path: Path, mark: str, script: str, code: int | None, number: int | None
) -> None:
    runner = Runner(clock=SystemClock(), containment=contained)
    ended = runner.run(Command(argv=["sh", "-c", script], cwd=tmp_path, env=ENV, jail=Jail(mark=mark)))
    assert (ended.reason, ended.exit_code, ended.signal) == (EndReason.EXITED, code, number)
    assert ended.survivors == 0


def test_a_command_that_cannot_be_run_was_not_started(
    contained: Containment, tmp_path: Path, mark: str
) -> None:
    runner = Runner(clock=SystemClock(), containment=contained)
    ended = runner.run(Command(argv=["no-such-tool"], cwd=tmp_path, env=ENV, jail=Jail(mark=mark)))
    assert ended.reason is EndReason.NOT_STARTED
    assert "no-such-tool" in ended.error


def test_the_attempt_is_named_in_the_environment_and_nothing_else_is_added(
    contained: Containment, tmp_path: Path, mark: str
) -> None:
    runner = Runner(clock=SystemClock(), containment=contained)
    ended = runner.run(Command(argv=["env"], cwd=tmp_path, env=ENV, jail=Jail(mark=mark)))
    assert sorted(ended.stdout.decode().split()) == sorted([f"HARNESS_ATTEMPT={mark}", f"PATH={ENV['PATH']}"])


def test_no_file_of_ours_is_open_in_the_jail(contained: Containment, tmp_path: Path, mark: str) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(fd, True)  # as bad as it gets
    try:
        runner = Runner(clock=SystemClock(), containment=contained)
        command = Command(argv=["ls", "/proc/self/fd"], cwd=tmp_path, env=ENV, jail=Jail(mark=mark))
        assert runner.run(command).stdout.split() == [b"0", b"1", b"2", b"3"]
    finally:
        os.close(fd)


def test_the_jail_does_not_start_when_its_parent_has_died(
    contained: Containment, tmp_path: Path, mark: str
) -> None:
    """The race between fork and PR_SET_PDEATHSIG: the parent that is expected is not the one that we have."""
    argv = contained.wrap(["touch", str(tmp_path / "ran")], Jail(mark=mark))
    argv[argv.index("--parent") + 1] = "1" if os.getpid() != 1 else "2"
    with running(argv) as process:
        assert process.wait(30) == 125
    assert not (tmp_path / "ran").exists()


def test_the_cgroup_of_an_attempt_is_removed_with_it(tmp_path: Path, mark: str) -> None:
    contained = Containment.probe(Sandbox.NONE, only=Kind.CGROUP)
    if contained.cgroup is None:
        pytest.skip("no cgroup is delegated to us")
    group = contained.cgroup / cgroups.mark_name(mark)
    Runner(clock=SystemClock(), containment=contained).run(
        Command(argv=["test", "-d", str(group)], cwd=tmp_path, env=ENV, jail=Jail(mark=mark))
    )
    assert not group.exists()


# --- marks: what is found when even the wrapper has been killed ------------------------------------------------------


def orphaned(trick: str, lock: Path, mark: str) -> None:
    """An agent whose wrapper and worker are dead, so that only marks and working directories are left to find it."""
    code = (
        "import os, subprocess, sys; os.environ['HARNESS_ATTEMPT'] = sys.argv[1];"
        "subprocess.run([sys.executable, '-c', *sys.argv[2:]], check=True)"
    )
    subprocess.run(
        [sys.executable, "-c", code, mark, ESCAPE, trick, str(lock)], cwd=lock.parent, check=True, timeout=60
    )


@pytest.mark.parametrize("trick", ["setsid double", "setsid double title deaf closefds nohup chdir"])
def test_an_orphan_is_found_by_its_mark(trick: str, lock: Path, mark: str) -> None:
    orphaned(trick, lock, mark)
    assert held(lock)
    assert Containment().kill(mark) == 1
    assert not held(lock)


def test_an_orphan_without_a_mark_is_found_where_it_works(lock: Path, mark: str) -> None:
    orphaned("setsid double env-i", lock, mark)
    assert Containment().kill(mark) == 0
    assert held(lock)
    assert not Containment().empty(mark, below=[lock.parent])
    assert Containment().kill(mark, below=[lock.parent]) == 1
    assert not held(lock)


def test_marks_alone_do_not_promise_what_they_cannot_hold(lock: Path, mark: str) -> None:
    """Without mark, elsewhere, and its wrapper killed: it survives, and doctor says so."""
    orphaned("setsid double env-i chdir", lock, mark)
    try:
        assert Containment().kill(mark, below=[lock.parent]) == 0
        assert held(lock)
        assert any("best effort" in text for text in Containment().explain())
    finally:
        for holder in procs.holders(lock).found:
            procs.signal(holder, signal.SIGKILL)
    until(lambda: not held(lock))


def test_what_is_left_by_a_killed_wrapper_is_ended_by_its_worker(lock: Path, mark: str) -> None:
    """An agent that can signal its wrapper gains nothing: the worker is the next subreaper."""
    contained = Containment.probe(Sandbox.NONE, only=Kind.MARKS)
    with running(working(contained, TRICKS[-1] + " stay", lock, mark)) as worker:
        until(lambda: ready(lock), what="agent")
        wrapper = next(one.pid for one in procs.snapshot().values() if one.ppid == worker.pid)
        os.kill(wrapper, signal.SIGKILL)
        worker.wait(30)
        assert not held(lock)


# --- who is spared ---------------------------------------------------------------------------------------------------


def test_kill_spares_itself_and_its_ancestors(tmp_path: Path, mark: str) -> None:
    code = (
        "import sys; from pathlib import Path; from harness.containment import Containment\n"
        "print(Containment().kill(sys.argv[1], below=[Path(sys.argv[2])]), flush=True)"
    )
    with python(code, mark, str(tmp_path), cwd=tmp_path, HARNESS_ATTEMPT=mark) as process:
        assert line(process) == "0"
        assert process.wait(30) == 0


def test_kill_spares_other_attempts_and_everybody_else(tmp_path: Path, mark: str) -> None:
    hold = "print('ready', flush=True); input()"
    other = mark.replace(".1", ".12")
    with python(hold, HARNESS_ATTEMPT=other) as one, python(hold) as two, python(hold, cwd=tmp_path) as three:
        for process in (one, two, three):
            line(process)
        assert Containment().kill(mark, below=[tmp_path / "worktree"]) == 0
        assert [process.poll() for process in (one, two, three)] == [None, None, None]


def test_kill_spares_a_person_at_a_terminal_in_the_worktree(tmp_path: Path, mark: str) -> None:
    """`cd state/worktrees/...` is what people do to look; their shell is not part of the attempt."""
    code = (
        "import fcntl, os, pty, termios\n"
        "leader, follower = pty.openpty()\n"
        "fcntl.ioctl(follower, termios.TIOCSCTTY, 0)\n"
        "print('ready', flush=True); input()"
    )
    with python(code, cwd=tmp_path) as shell:
        line(shell)
        assert Containment().kill(mark, below=[tmp_path]) == 0
        assert shell.poll() is None


@pytest.mark.parametrize("name", ["", "../x", "a/b", "-x", "A", "x" * 200, "a..b"])
def test_what_is_no_mark_is_refused(name: str) -> None:
    with pytest.raises(ValueError):
        Containment().kill(name)


# --- probing ---------------------------------------------------------------------------------------------------------


def test_every_mechanism_is_described_with_its_reason() -> None:
    contained = Containment.probe()
    findings = {one.name: one for one in contained.describe()}
    assert list(findings) == ["cgroup", "PID namespace", "Landlock", "bubblewrap"]
    assert all(one.detail for one in findings.values())
    assert (Kind.CGROUP in contained.kinds) == findings["cgroup"].available
    assert (Kind.PIDNS in contained.kinds) == findings["PID namespace"].available
    assert len(contained.explain()) >= 6


def test_probing_leaves_nothing_behind() -> None:
    contained = Containment.probe()
    until(lambda: not procs.tree(os.getpid())[1:], what="no child")
    if contained.cgroup is not None:
        assert not list(contained.cgroup.glob(f"harness-trial-{os.getpid()}-*"))


def test_the_groups_of_a_probe_that_was_killed_are_removed_by_the_next(tmp_path: Path) -> None:
    with running(["true"]) as gone:
        gone.wait(30)
    abandoned = tmp_path / f"harness-trial-{gone.pid}-0a"
    living = tmp_path / f"harness-trial-{os.getpid()}-0a"
    attempt = tmp_path / "harness-fix-login.1"
    for folder in (abandoned, living, attempt):
        folder.mkdir()
    mechanisms.remove_abandoned(tmp_path)
    assert [abandoned.exists(), living.exists(), attempt.exists()] == [False, True, True]


def test_the_cgroup_of_a_dead_worker_is_removed_by_whoever_ends_its_attempt(mark: str) -> None:
    contained = Containment.probe(Sandbox.NONE, only=Kind.CGROUP)
    if contained.cgroup is None:
        pytest.skip("no cgroup is delegated to us")
    contained.wrap(["true"], Jail(mark=mark))
    assert (contained.cgroup / cgroups.mark_name(mark)).is_dir()
    assert Containment().kill(mark) == 0
    assert not (contained.cgroup / cgroups.mark_name(mark)).exists()


def test_a_cgroup_that_vanished_is_an_error_with_a_remedy(tmp_path: Path, mark: str) -> None:
    contained = Containment(cgroup=tmp_path / "gone")
    with pytest.raises(HarnessError) as caught:
        contained.wrap(["true"], Jail(mark=mark))
    assert caught.value.remedy


def test_a_namespace_that_cannot_be_made_is_told_and_nothing_is_run(tmp_path: Path, mark: str) -> None:
    """A limit that is reached later must not mean that an agent runs uncontained."""
    contained = Containment(namespaces=("pid",))
    argv = contained.wrap(["touch", str(tmp_path / "ran")], Jail(mark=mark))
    start = argv.index("-c") + 1
    argv[start] = argv[start].replace("jail.main()", "jail.libc.unshare = lambda flags: -1; jail.main()")
    with running(argv, stderr=subprocess.PIPE) as process:
        assert process.wait(30) == 125
        assert process.stderr is not None
        assert b"unshare" in process.stderr.read()
    assert not (tmp_path / "ran").exists()


def test_where_the_cgroup_is_mounted_is_read_from_any_kind_of_host() -> None:
    pure = "24 1 0:22 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate"
    hybrid = "30 24 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n31 24 0:27 / /sys/fs/cgroup/unified rw - cgroup2 none rw"
    container = "24 1 0:22 /docker/abc /sys/fs/c\\040group ro - cgroup2 cgroup rw"
    assert cgroups.mount_point(pure) == (Path("/sys/fs/cgroup"), "/")
    assert cgroups.mount_point(hybrid) == (Path("/sys/fs/cgroup/unified"), "/")
    assert cgroups.mount_point(container) == (Path("/sys/fs/c group"), "/docker/abc")
    assert cgroups.mount_point("30 24 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu") is None


def test_children_are_found_without_the_kernels_list_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, mode: str = "r") -> object:
        if name.endswith("children"):
            raise FileNotFoundError(name)
        return open(name, mode)

    monkeypatch.setattr(jail, "open", refuse, raising=False)
    with python("print('ready', flush=True); input()") as child:
        line(child)
        assert child.pid in jail.children()
