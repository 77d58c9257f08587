"""The sandbox for files: what an agent cannot do to the queue, to other worktrees and to credentials, and that it can work."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness import jail
from harness.clock import SystemClock
from harness.config import Sandbox
from harness.containment import Containment, Jail, Kind, Policy
from harness.errors import ConfigError, HarnessError
from harness.mechanisms import Offer
from harness.runner import Command, Ended, EndReason, Runner

SECRET = "sk-very-secret"
CELL = '{"v": 1, "n": 1}\n'


@dataclass(frozen=True)
class Place:
    """A root with a hub, the worktree of our agent and that of another one."""

    root: Path
    policy: Policy
    runner: Runner
    mark: str

    @property
    def worktree(self) -> Path:
        return self.root / "state/worktrees/app/agent-1"

    def sh(self, script: str) -> Ended:
        env = {
            "PATH": os.environ.get("PATH", os.defpath),
            "ROOT": str(self.root),
            "PYTHON": sys.executable,
            "HOME": str(self.root / "state/sessions/one"),
            "TMPDIR": str(self.root / "state/sessions/one"),
            **{name: value for name, value in os.environ.items() if name.startswith("GIT_")},
        }
        return self.runner.run(
            Command(
                argv=["sh", "-c", script],
                cwd=self.worktree,
                env=env,
                jail=Jail(mark=self.mark, policy=self.policy),
                timeout_s=60,
                stdout=None,
            )
        )


def git(*args: str, cwd: Path, stdin: bytes = b"") -> str:
    me = ("-c", "user.name=Test", "-c", "user.email=test@example.invalid")
    done = subprocess.run(["git", *me, *args], cwd=cwd, check=True, capture_output=True, input=stdin)
    return done.stdout.decode().strip()


def make_place(root: Path) -> None:
    for folder in (
        "queue/open/item-1",
        "queue/tmp",
        "state/control",
        "state/limits",
        "state/sessions/one",
        "secrets",
    ):
        (root / folder).mkdir(parents=True)
    (root / "queue/open/item-1/1.claim").write_text(CELL)
    (root / "state/control/pause").write_text("")
    (root / "secrets/key").write_text(SECRET)
    (root / "secrets/key.link").symlink_to(root / "secrets/key")
    (root / "config.yaml").write_text("v: 1\n")
    hub = root / "state/repos/app.git"
    hub.mkdir(parents=True)
    git("init", "-q", "--bare", "-b", "main", ".", cwd=hub)
    first = git("commit-tree", "-m", "first", git("mktree", cwd=hub), cwd=hub)
    git("update-ref", "refs/heads/main", first, cwd=hub)
    for slot in ("agent-1", "agent-2"):
        git(
            "worktree",
            "add",
            "-q",
            "-b",
            f"harness/{slot}/1",
            str(root / "state/worktrees/app" / slot),
            "main",
            cwd=hub,
        )
    # A linked worktree of a bare repository does write a log of its branch.
    (hub / "logs/refs/heads/harness/agent-1").mkdir(parents=True)
    (root / "state/worktrees/app/agent-2/theirs").write_text("theirs\n")


def make_policy(root: Path) -> Policy:
    hub = root / "state/repos/app.git"
    return Policy(
        write=(
            root / "state/worktrees/app/agent-1",
            root / "state/sessions/one",
            hub / "objects",
            hub / "worktrees/agent-1",
            hub / "refs/heads/harness/agent-1",
            hub / "logs/refs/heads/harness/agent-1",
        ),
        hide=(root / "secrets", root / "queue", root / "state/limits", root / "not-yet"),
    )


WAYS = {
    "landlock": (Sandbox.LANDLOCK, Kind.PIDNS),  # with read-only mounts behind it
    "landlock-alone": (Sandbox.LANDLOCK, Kind.MARKS),  # where no namespace can be made
    "bwrap": (Sandbox.BWRAP, Kind.PIDNS),
}


@pytest.fixture(scope="module", params=WAYS)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Made once: no test may change anything outside of the worktree, which is what they are about."""
    sandbox, kind = WAYS[request.param]
    try:
        found = Containment.probe(sandbox, only=kind)
    except ConfigError as e:
        pytest.skip(str(e))
    root = tmp_path_factory.mktemp("sandbox").resolve() / "root"
    make_place(root)
    return Place(
        root=root,
        policy=make_policy(root),
        runner=Runner(clock=SystemClock(), containment=found),
        mark=f"sandbox-{os.getpid()}-{os.urandom(4).hex()}.1",
    )


@pytest.fixture
def place(site: Place) -> Iterator[Place]:
    """With an empty worktree."""
    for path in site.worktree.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != ".git":
            path.unlink()
    yield site
    site.runner.beat, site.runner.beat_s = lambda: None, 5.0
    assert site.runner.containment.empty(site.mark)


def contents(root: Path) -> dict[str, tuple[str, int]]:
    """Everything that the agent must leave alone: name -> (content, mode)."""
    found = {}
    for top in (
        "queue",
        "state/control",
        "state/limits",
        "secrets",
        "state/worktrees/app/agent-2",
        "config.yaml",
    ):
        for path in [root / top, *(root / top).rglob("*")]:
            if path.name != ".git":
                text = path.read_text() if path.is_file() else ""
                found[str(path.relative_to(root))] = (text, path.lstat().st_mode)
    hub = root / "state/repos/app.git"
    for name in ("config", "HEAD", "refs/heads/main", "worktrees/agent-2/HEAD"):
        found[name] = ((hub / name).read_text(), 0)
    found["hooks"] = (" ".join(sorted(os.listdir(hub / "hooks"))) if (hub / "hooks").exists() else "", 0)
    return found


FORGERIES = {
    "drop work": 'echo {} > "$ROOT/queue/new.json"',
    "forge a cell": 'echo {} > "$ROOT/queue/open/item-1/1.end"',
    "overwrite a cell": 'echo {} > "$ROOT/queue/open/item-1/1.claim"',
    "append to a cell": 'echo {} >> "$ROOT/queue/open/item-1/1.claim"',
    "truncate a cell": '"$PYTHON" -c "import os, sys; os.truncate(sys.argv[1], 0)" "$ROOT/queue/open/item-1/1.claim"',
    "remove a cell": 'rm -f "$ROOT/queue/open/item-1/1.claim"',
    "move an item away": 'mv "$ROOT/queue/open/item-1" stolen',
    "rename a cell": 'mv "$ROOT/queue/open/item-1/1.claim" "$ROOT/queue/open/item-1/9.claim"',
    "link a cell into the worktree": 'ln "$ROOT/queue/open/item-1/1.claim" cell && echo {} > cell',
    "link a file of the worktree into the queue": 'echo {} > mine; ln mine "$ROOT/queue/forged.json"',
    "write through a symbolic link": 'ln -s "$ROOT/queue" way; echo {} > way/forged.json',
    "write through a link to a file": 'ln -s "$ROOT/queue/open/item-1/1.claim" way; echo {} > way',
    "write through /proc": 'echo {} > "/proc/self/root$ROOT/queue/forged.json"',
    "write through the working directory of another process": 'echo {} > "/proc/$PPID/root$ROOT/queue/forged.json"',
    "make a folder": 'mkdir "$ROOT/queue/open/item-2"',
    "mount over it": 'mount --bind . "$ROOT/queue" && echo {} > "$ROOT/queue/forged.json"',
    "in a namespace of its own": 'unshare -rm sh -c \'mount --bind . "$ROOT/queue"; mount -o remount,rw /; echo {} > "$ROOT/queue/x.json"\'',
    "from a grandchild": "setsid sh -c '(echo {} > \"$ROOT/queue/forged.json\") & wait'",
    "from python": "\"$PYTHON\" -c \"import os; open(os.environ['ROOT'] + '/queue/x.json', 'w')\"",
    "touch a control file": ': > "$ROOT/state/control/stop"',
    "remove a control file": 'rm -f "$ROOT/state/control/pause"',
    "change the configuration": 'echo "workers: 99" >> "$ROOT/config.yaml"',
    "another worktree": 'echo mine > "$ROOT/state/worktrees/app/agent-2/theirs"; rm "$ROOT/state/worktrees/app/agent-2/theirs"',
    "the hub's configuration": 'git config core.fsmonitor ./evil; echo "[core]" >> "$ROOT/state/repos/app.git/config"',
    "the hub's hooks": 'mkdir -p "$ROOT/state/repos/app.git/hooks"; echo x > "$ROOT/state/repos/app.git/hooks/pre-commit"',
    "the target branch": "git update-ref refs/heads/main HEAD~0; git branch -f main HEAD; git commit -q --allow-empty -m x; git update-ref refs/heads/main HEAD",
    "another branch": 'git update-ref -d refs/heads/harness/agent-2/1; echo x > "$ROOT/state/repos/app.git/worktrees/agent-2/HEAD"',
}

THEFTS = {
    "read": 'cat "$ROOT/secrets/key"',
    "through a symbolic link of its own": 'ln -s "$ROOT/secrets/key" way; cat way',
    "through a symbolic link that was there": 'cat "$ROOT/secrets/key.link"',
    "through a hard link": 'ln "$ROOT/secrets/key" way; cat way',
    "by moving": 'mv "$ROOT/secrets/key" way; cat way',
    "by copying": 'cp -a "$ROOT/secrets" copy; cat copy/*',
    "through /proc": 'cat "/proc/self/root$ROOT/secrets/key" "/proc/self/cwd/../../../../secrets/key"',
    "from a grandchild": "setsid sh -c 'cat \"$ROOT/secrets/key\" & wait'",
    "with a namespace of its own": 'unshare -rm cat "$ROOT/secrets/key"',
    "by git": 'git diff --no-index /dev/null "$ROOT/secrets/key"; git hash-object -w "$ROOT/secrets/key" | xargs git cat-file -p',
    "from the raw disk": 'cat /dev/[svx]d[a-z]* /dev/nvme* /dev/mem 2>/dev/null | head -c 1 | grep -q . && echo "$PYTHON" | tr -d "\\n" && echo sk-very-secret',
}


@pytest.mark.parametrize("how", FORGERIES)
def test_an_agent_cannot_write_what_is_not_its_own(place: Place, how: str) -> None:
    before = contents(place.root)
    ended = place.sh(FORGERIES[how])
    assert ended.reason is EndReason.EXITED, ended
    assert contents(place.root) == before


@pytest.mark.parametrize("how", THEFTS)
def test_an_agent_cannot_read_what_is_hidden(place: Place, how: str) -> None:
    ended = place.sh(THEFTS[how])
    assert ended.reason is EndReason.EXITED, ended
    assert SECRET.encode() not in ended.stdout + ended.stderr
    for path in place.worktree.rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert SECRET not in path.read_text()


def test_a_hidden_path_that_appears_later_is_hidden_too(place: Place) -> None:
    if place.runner.containment.sandbox is Sandbox.BWRAP:
        pytest.skip("bubblewrap cannot mask what is not there; it is documented")
    script = ': > ready; while ! test -e "$ROOT/not-yet"; do sleep 0.01; done; cat "$ROOT/not-yet"'

    def beat() -> None:
        if (place.worktree / "ready").exists() and not (place.root / "not-yet").exists():
            (place.root / "not-yet.tmp").write_text(SECRET)
            (place.root / "not-yet.tmp").rename(place.root / "not-yet")

    place.runner.beat, place.runner.beat_s, place.runner.beat_at = beat, 0.01, 0.0
    ended = place.sh(script)
    assert ended.exit_code == 1
    assert SECRET.encode() not in ended.stdout


WORK = {
    "files": "mkdir -p a/b && echo x > a/b/c && mv a/b/c a/d && ln a/d e && ln -s a/d f && cat f && rm -r a && cat e; rm e f",
    "rename between own folders": 'echo x > g && mv g "$HOME/g" && mv "$HOME/g" g && rm g',
    "commit": "echo change > file && git add file && git commit -q -m change && git log --oneline && git status --porcelain",
    "amend, stash-free history": "echo a > h && git add h && git commit -qm a && git commit -q --amend -m b && git diff HEAD~1",
    "null": "echo x > /dev/null && cat /dev/null && head -c 8 /dev/urandom | wc -c",
    "std": "echo out > /dev/stdout; echo err > /dev/stderr; echo x | cat /dev/stdin",
    "pipes": "seq 1000 | sort -n | tail -1 | { read x; test $x = 1000; }",
    "python": "\"$PYTHON\" -c \"import tempfile, os; f = tempfile.NamedTemporaryFile(); f.write(b'x'); print(os.listdir('.'))\"",
    "multiprocessing": '"$PYTHON" -c "import multiprocessing as m; p = m.get_context(\'fork\').Pool(2); print(p.map(abs, [-1])); p.terminate(); p.join()"',
    "a pseudo terminal": '"$PYTHON" -c "import pty, os; m, s = pty.openpty(); os.write(s, b\'x\'); print(os.ttyname(s))"',
    "a socket": '"$PYTHON" -c "import socket as s; a = s.socket(); a.bind((\'127.0.0.1\', 0)); a.listen(); b = s.create_connection(a.getsockname())"',
    "a unix socket": "\"$PYTHON\" -c \"import socket as s; a = s.socket(s.AF_UNIX); a.bind('sock'); a.listen(); b = s.socket(s.AF_UNIX); b.connect('sock')\" && rm sock",
    "processes": "ps ax > /dev/null 2>&1; sh -c 'kill -TERM $$' || test $? = 143; sleep 100 & kill $!",
    "the system": "ls / > /dev/null && cat /etc/os-release > /dev/null && test -r /usr/bin/env",
    "a script": "printf '#!/bin/sh\\necho ran\\n' > s && chmod +x s && ./s && rm s",
}


@pytest.mark.parametrize("what", WORK)
def test_an_agent_can_work(place: Place, what: str) -> None:
    ended = place.sh("set -e\n" + WORK[what])
    assert ended.ok, ended


def test_a_commit_of_the_agent_arrives_in_the_hub(place: Place) -> None:
    assert place.sh("echo 1 > file && git add file && git commit -q -m 'from the jail'").ok
    hub = place.root / "state/repos/app.git"
    log = subprocess.check_output(["git", "log", "--format=%s", "harness/agent-1/1"], cwd=hub, text=True)
    assert log.splitlines()[0] == "from the jail"
    git("fsck", "--strict", cwd=hub)


def test_output_that_goes_to_files_can_be_written_again_by_name(place: Place, tmp_path: Path) -> None:
    """`> /dev/stderr` opens the log anew; scripts do that."""
    ended = place.runner.run(
        Command(
            argv=["sh", "-c", "echo one >> /dev/stdout; echo two >> /dev/stderr"],
            cwd=place.worktree,
            env={"PATH": os.environ.get("PATH", os.defpath)},
            stdout=tmp_path / "out",
            stderr=tmp_path / "err",
            jail=Jail(mark=place.mark, policy=place.policy),
        )
    )
    assert ended.ok, ended
    assert ((tmp_path / "out").read_text(), (tmp_path / "err").read_text()) == ("one\n", "two\n")


def test_processes_outside_can_neither_be_seen_inside_nor_be_signalled(place: Place) -> None:
    contained = place.runner.containment
    if not contained.namespaces and jail.landlock_abi() < jail.ABI_WITH_SCOPES:
        pytest.skip("needs a PID namespace or Linux 6.12")
    ended = place.sh(f"kill -0 {os.getpid()} && exit 1; cat /proc/{os.getpid()}/environ && exit 2; exit 0")
    assert ended.exit_code == 0, ended


def test_modes_and_times_cannot_be_changed_where_mounts_are_read_only(place: Place) -> None:
    """Landlock does not know chmod and utime; the mtime of a claim is a heartbeat."""
    if (
        place.runner.containment.sandbox is Sandbox.LANDLOCK
        and "mount" not in place.runner.containment.namespaces
    ):
        pytest.skip("without a mount namespace this is not promised")
    cell = place.root / "queue/open/item-1/1.claim"
    before = cell.stat()
    place.sh(
        'chmod 000 "$ROOT/queue/open/item-1/1.claim"; touch -d 2000-01-01 "$ROOT/queue/open/item-1/1.claim"'
    )
    assert (cell.stat().st_mode, cell.stat().st_mtime_ns) == (before.st_mode, before.st_mtime_ns)


def test_privileges_are_not_gained_by_setuid_programs(place: Place) -> None:
    ended = place.sh("grep NoNewPrivs /proc/self/status")
    assert ended.stdout.split() == [b"NoNewPrivs:", b"1"]


# --- policies --------------------------------------------------------------------------------------------------------


def test_a_policy_that_hides_inside_of_what_it_opens_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HarnessError) as caught:
        Policy(write=(tmp_path,), hide=(tmp_path / "secrets",))
    assert caught.value.remedy


def test_a_policy_with_a_relative_path_is_refused() -> None:
    with pytest.raises(HarnessError):
        Policy(write=(Path("here"),))


def test_what_is_opened_below_a_hidden_folder_is_open(place: Place) -> None:
    kept = place.root / "secrets/own"
    kept.mkdir()
    (kept / "file").write_text("mine")
    policy = Policy(write=(place.worktree,), hide=(place.root / "secrets",), read=(kept,))
    opened = Place(root=place.root, policy=policy, runner=place.runner, mark=place.mark)
    ended = opened.sh(
        'cat "$ROOT/secrets/own/file"; cat "$ROOT/secrets/key"; echo x > "$ROOT/secrets/own/file"'
    )
    assert ended.stdout == b"mine"
    assert (kept / "file").read_text() == "mine"


def test_a_writable_path_that_became_a_symbolic_link_is_refused(place: Place) -> None:
    """An earlier attempt may have put it there, to get at what it leads to."""
    trap = place.root / "state/sessions/trap"
    trap.symlink_to(place.root / "queue")
    policy = Policy(write=(place.worktree, trap))
    opened = Place(root=place.root, policy=policy, runner=place.runner, mark=place.mark)
    ended = opened.sh('echo {} > "$ROOT/queue/forged.json"')
    assert ended.reason is EndReason.NOT_STARTED
    assert "symbolic link" in ended.error
    assert not (place.root / "queue/forged.json").exists()


def test_a_writable_path_that_is_missing_is_told_and_nothing_is_run(place: Place) -> None:
    policy = Policy(write=(place.worktree, place.root / "missing"))
    opened = Place(root=place.root, policy=policy, runner=place.runner, mark=place.mark)
    ended = opened.sh("touch ran")
    assert ended.reason is EndReason.NOT_STARTED
    assert not (place.worktree / "ran").exists()


def test_without_a_sandbox_everything_is_open_and_said_to_be(tmp_path: Path) -> None:
    contained = Containment.probe(Sandbox.NONE)
    assert contained.sandbox is Sandbox.NONE
    assert any("no sandbox" in text for text in contained.explain())


def test_hiding_leaves_out_exactly_the_hidden(tmp_path: Path) -> None:
    for name in ("a/b/c", "a/b/d", "a/e", "f"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    top = str(tmp_path)
    grants = jail.readable([f"{top}/a/b/c", f"{top}/g/not/yet"], top)
    assert sorted(grants) == [f"{top}/a/b/d", f"{top}/a/e", f"{top}/f"]
    assert jail.readable([], top) == [top]
    assert jail.readable([f"{top}/ab"], top + "/a") == [top + "/a"]


# --- the choice ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("abi", "bwrap", "namespaces", "chosen"),
    [
        (7, True, True, Sandbox.LANDLOCK),
        (3, False, True, Sandbox.LANDLOCK),
        (2, True, True, Sandbox.BWRAP),  # truncation is not covered before ABI 3
        (7, True, False, Sandbox.BWRAP),  # it alone holds the processes
        (2, False, False, Sandbox.LANDLOCK),
        (0, True, True, Sandbox.BWRAP),
        (0, False, True, Sandbox.NONE),
    ],
)
def test_auto_takes_the_best_that_works(
    monkeypatch: pytest.MonkeyPatch, abi: int, bwrap: bool, namespaces: bool, chosen: Sandbox
) -> None:
    names = ("pid",) if namespaces else ()
    offer = Offer(cgroup=None, namespaces=names, landlock_abi=abi, bwrap=bwrap, findings=())
    monkeypatch.setattr("harness.mechanisms.offer", lambda: offer)
    assert Containment.probe(Sandbox.AUTO).sandbox is chosen


@pytest.mark.parametrize("wanted", [Sandbox.LANDLOCK, Sandbox.BWRAP])
def test_a_sandbox_that_was_asked_for_and_does_not_work_is_a_configuration_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wanted: Sandbox
) -> None:
    monkeypatch.setattr("harness.jail.landlock_abi", lambda: 0)
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(ConfigError) as caught:
        Containment.probe(wanted)
    assert "auto" in str(caught.value)
