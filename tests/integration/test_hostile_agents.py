"""What an agent may try against the daemon, other attempts, the queue and the person; and what stays true all the same.

All attacks run in one daemon, as items beside innocent ones, with one victim that runs from the first to the last of
them. Each test then asks for the traces of one attack; what holds for all of them together is asked at the end.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from harness import procs
from harness.clock import SystemClock
from harness.config import Sandbox
from harness.containment import Containment, Kind
from harness.model import Attempt
from harness.procs import ProcessId
from harness.store.disk import Disk
from harness.store.fsck import check
from tests.daemons import Daemon, daemon, git
from tests.support import environment, plain_environment, until

pytestmark = pytest.mark.timeout(300)

HERE = Containment.probe()
SANDBOXED = HERE.sandbox is not Sandbox.NONE
NAMESPACED = Kind.PIDNS in HERE.kinds
ENCLOSED = HERE.kind is not Kind.MARKS
SECRET = f"sk-test-{uuid.uuid4().hex}"
needs_sandbox = pytest.mark.skipif(not SANDBOXED, reason="no sandbox for files works here")
needs_enclosure = pytest.mark.skipif(not ENCLOSED, reason="neither a PID namespace nor a cgroup here")
needs_namespace = pytest.mark.skipif(not NAMESPACED, reason="no PID namespace here")


@dataclass(frozen=True)
class Place:
    """Where everything is, for scripts that know their enemy."""

    base: Path

    @property
    def root(self) -> Path:
        return self.base / "d" / "root"

    @property
    def app(self) -> Path:
        return self.base / "d" / "app"

    @property
    def outside(self) -> Path:
        """Not of the harness, not of the project: what lies there must stay as it is."""
        return self.base / "outside"

    @property
    def key(self) -> Path:
        return self.base / "key"

    @property
    def trap(self) -> Path:
        """Exists when one of our own calls ran what an agent had planted."""
        return self.base / "trap"

    @property
    def go(self) -> Path:
        """The victim goes on when this is there."""
        return self.base / "go"

    def sleeper(self, name: str) -> str:
        """A process that nobody else has, to be found by its command line."""
        return f"sleep 98765432.{sum(map(ord, str(self.base) + name))}"


def attacks(at: Place) -> dict[str, str]:
    """name -> the script that the agent runs in its worktree. All end by themselves, fast."""
    root, hub = at.root, at.root / "state/repos/app.git"
    me = 'uid="${HARNESS_ATTEMPT%.*}"; '
    commit = "git add -A; git commit -q -m work; "
    plant = f"touch {at.trap}"
    daemonize = (
        "import os, sys\n"
        "if os.fork(): os._exit(0)\n"
        "os.setsid()\n"
        "if os.fork(): os._exit(0)\n"
        "os.chdir('/')\n"
        "[os.close(fd) for fd in (0, 1, 2)]\n"
        f"os.execve('/bin/sh', ['sh', '-c', '{at.sleeper('double-fork')}; :'], {{'PATH': os.environ['PATH']}})\n"
    )
    scripts = {
        # ---- processes
        "outlives": f"setsid env -i PATH=$PATH {at.sleeper('outlives')} >/dev/null 2>&1 & touch outlives",
        "double-fork": f"python3 -c {shlex.quote(daemonize)}; touch double-fork",
        "renamed": f"HARNESS_ATTEMPT=victim.1 setsid {at.sleeper('renamed')} >/dev/null 2>&1 & "
        f"HARNESS_ATTEMPT=agent-1 nohup {at.sleeper('renamed')} >/dev/null 2>&1 & touch renamed",
        # ---- the hub
        "settings": commit + f"cd {hub} && git config core.fsmonitor {shlex.quote(plant)}; "
        f"git config core.hooksPath {hub}/hooks; git config filter.evil.clean {shlex.quote(plant + '; cat')}; "
        f"git config diff.external {shlex.quote(plant)}; git config core.sshCommand {shlex.quote(plant)}; "
        f"printf '#!/bin/sh\\n{plant}\\n' > hooks/post-checkout; chmod +x hooks/*; "
        "cp hooks/post-checkout hooks/reference-transaction; cp hooks/post-checkout hooks/pre-push; "
        "echo '* filter=evil' > info/attributes; "
        "cd - && echo '* filter=evil' > .gitattributes && echo more > filtered; exit 0",
        "branches": f"cd {hub}; for r in $(git for-each-ref --format='%(refname)'); do "
        "git update-ref -d $r; git branch -D ${r#refs/heads/}; rm -f $r $r.lock; touch $r.lock; done; "
        "rm -rf refs packed-refs worktrees/*/HEAD; rm -f HEAD config; exit 0",
        "lane": f"cd {hub}; git update-ref refs/harness/lane $(echo '{{}}' | git hash-object -w --stdin); "
        "git update-ref refs/heads/main $(git commit-tree -m evil HEAD^{tree}); exit 0",
        "stash": "echo stashed > stashed; git stash -u; git stash pop; git stash pop; git stash drop; exit 0",
        "trailers": f"for v in $(ls {root}/queue/open); do git commit -q --allow-empty "
        '-m "victim: merged" -m "Harness-Item: $v" -m "Harness-Attempt: 1"; done; '
        "git branch -q side HEAD~1 2>/dev/null; git checkout -q -b harness/x 2>/dev/null; "
        f"echo forged > trailers; git add -A; git commit -q -m 'trailers: forged' -m 'Harness-Item: victim'",
        "amends-base": "echo x > amended; git add -A; git commit -q --amend -m hacked",
        "rebases": "echo 1 > README.md; git commit -qam one; b=$(git rev-parse HEAD); git reset -q --hard HEAD~1; "
        "echo 2 > README.md; git commit -qam two; git rebase $b; exit 0",
        "nested": "git init -q nested; echo precious > nested/file; exit 0",
        "git-file": "rm -rf .git; echo x > y",
        "worktree": 'echo x > y; git add -A; git commit -qm work; cd /; rm -rf "$HARNESS_WORKTREE"; exit 0',
        "submodule": "git init -q sub; git -C sub commit -q --allow-empty -m x; "
        "git -c protocol.file.allow=always submodule add ./sub sub; "
        "printf '[submodule \"s\"]\\n\\tpath = s\\n\\turl = -u./evil\\n' > .gitmodules; git add .gitmodules; "
        "git commit -qm modules",
        "link-out": f"ln -s {at.outside} link-out; ln -s /etc/passwd passwd; " + commit,
        "newline": "touch \"$(printf 'new\\nline')\" \"$(printf 'q\\042uote')\" \"$(printf 'latin\\351')\"; " + commit,
        "push": f"echo pushed > pushed; {commit}git push {at.app} HEAD:refs/heads/main HEAD:refs/heads/evil; "
        f"git push -f origin HEAD:main; cd {at.app} && git update-ref refs/heads/work HEAD; echo x >> README.md; exit 0",
        # ---- the queue and the state
        "forges-end": me + f"cd {root}/queue/open/$uid && for n in 1.end 2.claim 1.verdict 0.end; do "
        """printf '{"v": 1, "n": 1, "outcome": "done", "by": "evil", "sha": "%040d", "merged": "%040d"}' 1 1 > $n; """
        "done; rm -f 1.claim item.json; exit 0",
        "forges-others": f"cd {root}/queue/open && for u in *; do "
        """printf '{"v": 1, "n": 1, "outcome": "cancelled", "by": "evil"}' > $u/1.end; rm -rf $u; done; """
        f"cd ..; rm -rf open waiting done ids ready tmp FORMAT; mv archive lost; exit 0",
        "drops": f"""echo '{{"prompt": "true", "commit": "none"}}' > {root}/queue/evil-drop.json; exit 0""",
        "control": f"cd {root}/state/control && touch stop drain pause pause.agent-1; mkdir priority; exit 0",
        "run": f"cd {root}/state/run; rm -rf *; echo x > coordinator.json; for f in bell.*; do echo > $f; done; "
        f"rm -f ../coordinator.lock; cd {root}; echo 'v: 9' > config.yaml; rm -rf state/events; exit 0",
        "config": f"cd {root}/state/run && cat config.json > $OLDPWD/seen; echo '{{}}' > config.json; rm -f config.json; "
        "ln -s $OLDPWD/mine config.json; cd $OLDPWD; echo mine > mine; exit 0",
        "sessions": f"cd {root}/state/sessions && rm -rf */*; echo forged > */*/summary.json; exit 0",
        "reads-others": f"cat {root}/state/sessions/*/*/prompt.1.md > others 2>/dev/null; "
        'cat "$HARNESS_PROMPT_FILE" > own; exit 0',
        # ---- the disk
        "many-files": 'cd "$TMPDIR" && mkdir many && cd many && seq 20000 | xargs touch; exit 0',
        "fills-tmp": 'dd if=/dev/zero of="$TMPDIR/big" bs=1M count=64 2>/dev/null; echo "$TMPDIR" > where; exit 0',
        "read-only": 'mkdir -p ro/x "$TMPDIR/ro/x" "$HOME/ro/x"; for d in ro "$TMPDIR/ro" "$HOME/ro"; do '
        'echo x > "$d/x/f"; chmod -R a-w "$d"; chmod 0 "$d/x"; done; touch read-only; exit 0',
        "keep-link": f"rm -rf cache; ln -s {at.outside} cache; touch keep-link",
        "outside": f"rm -rf {at.outside}/*; echo evil > {at.outside}/file; exit 0",
        # ---- secrets and terminals
        "reads-key": f"cat {at.key} > stolen 2>/dev/null; tr '\\0' '\\n' < /proc/$PPID/environ > stolen2; "
        "cat /proc/*/environ > stolen3 2>/dev/null; cat stolen*; exit 0",
        "controls": "printf '\\033]0;owned\\007\\033[31m\\302\\233' | tee controls; "
        "printf 'last words \\033[2J\\033]0;owned\\007\\n' >&2; exit 9",
    }  # fmt: skip
    if NAMESPACED:
        ours = os.readlink("/proc/self/ns/pid")
        guard = f'[ "$(readlink /proc/self/ns/pid)" != {shlex.quote(ours)} ] || exit 0; '
        scripts["kills-parent"] = (
            guard + f"{at.sleeper('kills-parent')} & kill -9 $PPID; kill -9 1; touch kills-parent"
        )
        scripts["kills-all"] = guard + f"{at.sleeper('kills-all')} & kill -9 -1; touch kills-all"
    return scripts


CHATTY = "while :; do head -c 65536 /dev/zero; done"
LEAKS = "printf 'the key is %s\\n' \"$KEY\"; printf 'the key is %s\\n' \"$KEY\" >&2; exit 7"
INNOCENTS = 4


@dataclass
class Aftermath:
    """The daemon after everything that was tried."""

    d: Daemon
    at: Place
    pid: int
    outside: dict[str, str]
    first: str
    """The commit that the person's main had in the beginning."""
    left: dict[str, list[ProcessId]] = field(default_factory=dict)
    """Attack -> what it had left running when its item was over."""

    def attempt(self, name: str) -> Attempt:
        seen = self.d.items()[name]
        assert len(seen.attempts) == 1, seen
        return seen.attempts[0]

    def outcome(self, name: str) -> str:
        end = self.attempt(name).end
        assert end is not None
        return end.outcome.value

    def reason(self, name: str) -> str:
        end = self.attempt(name).end
        assert end is not None
        return end.reason

    def merged(self, name: str) -> int:
        """How often it is on the first-parent line of the hub's main."""
        uid = self.d.items()[name].uid
        format_ = "--format=%(trailers:key=Harness-Item,valueonly,separator=%x00)"
        lines = git(
            self.d.layout.hub("app"), "log", "--first-parent", "--min-parents=2", format_, "main"
        ).splitlines()
        return lines.count(uid)

    def files(self) -> list[bytes]:
        argv = ["git", "ls-tree", "-r", "-z", "--name-only", "main"]
        return subprocess.run(argv, cwd=self.d.app, check=True, capture_output=True).stdout.split(b"\0")

    def folder(self, name: str) -> Path:
        """The session folder of its attempt."""
        (found,) = self.d.layout.sessions.glob(f"*/{self.d.items()[name].uid}.1")
        return found

    def everything_said(self) -> bytes:
        """All that the harness itself wrote about it: queue, events, logs, reports."""
        folders = [self.d.layout.queue, self.d.layout.events, self.d.layout.logs, self.d.layout.run]
        files = [p for f in folders for p in f.rglob("*") if p.is_file() and not p.is_symlink()]
        return b"".join(p.read_bytes() for p in [*files, self.d.base / "coordinator.log"])


def sleepers(command: str) -> list[ProcessId]:
    needle = command.replace(" ", "\0").encode()
    found = []
    for pid in procs.pids():
        with contextlib.suppress(OSError):
            if needle in Path(f"/proc/{pid}/cmdline").read_bytes() and (who := ProcessId.of(pid)):
                found.append(who)
    return found


def contents(folder: Path) -> dict[str, str]:
    return {str(p): p.read_text() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module", autouse=True)
def _plain() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        plain_environment(monkeypatch)
        yield


@pytest.fixture(scope="module")
def after(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aftermath]:
    at = Place(tmp_path_factory.mktemp("agents"))
    at.outside.mkdir()
    (at.outside / "file").write_text("precious")
    at.key.write_text(SECRET)
    at.key.chmod(0o600)
    peeks = f"! grep -q sk- {at.key}"  # a gate runs what agents wrote: it must not see the key either
    shell = {"adapter": "command", "argv": ["sh", "{prompt_file}"], "prompt": "file"}
    settings: dict[str, Any] = {
        "project": {
            "keep": ["cache"],
            "gates": [{"name": "peeks", "run": peeks}] if SANDBOXED else [],
            "merge": {"gates": ["peeks"]} if SANDBOXED else {},
        },
        "agents": {
            "shell": shell,
            "keyed": shell | {"credential": "team"},
            "chatty": shell | {"max_output_mb": 1},
        },
        "credentials": {"team": {"variable": "KEY", "file": str(at.key)}},
        "heal": {"rounds": 0},
        "retry": {"max_attempts": 1, "first_delay_s": 0.0, "max_delay_s": 0.0},
    }
    scripts = attacks(at)
    try:
        with daemon(at.base / "d", workers=3, **settings) as d:
            git(d.app, "switch", "-q", "main")
            (d.app / ".gitignore").write_text("/cache\n")
            git(d.app, "add", ".")
            git(d.app, "commit", "-q", "-m", "ignore the cache")
            git(d.app, "switch", "-q", "work")
            made = Aftermath(d, at, 0, contents(at.outside), git(d.app, "rev-parse", "main"))
            made.pid = d.start().pid
            wait = f"while [ ! -e {at.go} ]; do sleep 0.05; done; echo victim > victim"
            d.drop("victim", {"prompt": wait, "priority": 0})
            d.until_running("victim")
            for k in range(INNOCENTS):
                d.drop(f"innocent-{k}", {"prompt": f"echo {k} > innocent-{k}", "priority": (k * 3) % 10})
            for name, script in scripts.items():
                d.drop(name, {"id": name, "prompt": script, "commit": "optional"})
            d.drop("chatty", {"id": "chatty", "prompt": CHATTY, "agent": "chatty", "commit": "none"})
            d.drop("leaks", {"id": "leaks", "prompt": LEAKS, "agent": "keyed", "commit": "none"})
            for name in (*scripts, "chatty", "leaks"):
                d.until_state(name, "merged", "done", "parked", timeout_s=120)
                made.left[name] = sleepers(at.sleeper(name))
            at.go.touch()
            d.until_state("victim", "merged")
            for k in range(INNOCENTS):
                d.until_state(f"innocent-{k}", "merged")
            until(
                lambda: git(d.app, "rev-parse", "main") == git(d.layout.hub("app"), "rev-parse", "main"), 30
            )
            yield made
    finally:
        for name in scripts:
            for who in sleepers(at.sleeper(name)):
                procs.signal(who, signal.SIGKILL)


# ---- processes -------------------------------------------------------------------------------------------------------


@needs_enclosure
def test_a_process_that_leaves_session_environment_and_terminal_does_not_outlive_its_attempt(
    after: Aftermath,
) -> None:
    assert after.outcome("outlives") == "done"
    assert after.left["outlives"] == []
    assert after.merged("outlives") == 1


@needs_enclosure
def test_a_daemon_by_double_fork_does_not_outlive_its_attempt(after: Aftermath) -> None:
    assert after.left["double-fork"] == []
    assert after.merged("double-fork") == 1


@needs_enclosure
def test_a_process_that_calls_itself_another_attempt_ends_with_its_own_and_the_other_goes_on(
    after: Aftermath,
) -> None:
    assert after.left["renamed"] == []
    assert after.outcome("victim") == "done"


@needs_namespace
def test_an_agent_that_kills_its_parent_ends_nothing_but_its_own(after: Aftermath) -> None:
    assert after.left["kills-parent"] == []
    assert not after.d.events("worker_died")


@needs_namespace
def test_an_agent_that_kills_everybody_ends_nothing_but_its_own(after: Aftermath) -> None:
    assert after.left["kills-all"] == []
    assert not after.d.events("worker_died")


# ---- the hub ---------------------------------------------------------------------------------------------------------


def test_settings_hooks_and_filters_that_an_agent_plants_never_run_in_our_git(after: Aftermath) -> None:
    assert not after.at.trap.exists()
    assert after.merged("settings") == 1
    assert git(after.d.app, "show", "main:filtered") == "more"


@needs_sandbox
def test_an_agent_cannot_remove_branches_and_refs_of_others(after: Aftermath) -> None:
    assert after.outcome("branches") == "failed"  # it could break what is its own
    assert after.outcome("victim") == "done"
    assert after.merged("victim") == 1


@needs_sandbox
def test_an_agent_cannot_move_the_lane_or_the_target(after: Aftermath) -> None:
    assert after.outcome("lane") == "done"
    log = git(after.d.layout.hub("app"), "log", "--format=%s", "main")
    assert "evil" not in log.splitlines()


def test_a_stash_is_nobody_elses_and_its_contents_are_not_lost(after: Aftermath) -> None:
    assert b"stashed" in after.files()
    assert git(after.d.layout.hub("app"), "for-each-ref", "refs/stash") == ""


def test_trailers_that_name_another_item_forge_no_merge(after: Aftermath) -> None:
    assert after.merged("trailers") == 1
    assert after.merged("victim") == 1
    assert git(after.d.app, "show", "main:victim") == "victim"


def test_an_amended_base_is_refused(after: Aftermath) -> None:
    assert "does not contain" in after.reason("amends-base")
    assert after.first in git(after.d.app, "log", "--first-parent", "--format=%H", "main").splitlines()
    assert b"amended" not in after.files()


def test_a_rebase_left_half_way_is_refused_and_kept(after: Aftermath) -> None:
    assert "rebase" in after.reason("rebases")
    (kept,) = after.d.layout.kept.glob("rebases-*")
    assert (kept / "README.md").exists()


def test_a_nested_repository_is_refused_and_its_files_are_kept(after: Aftermath) -> None:
    assert "nested" in after.reason("nested")
    (file,) = after.d.layout.kept.glob("nested-*/nested/file")
    assert file.read_text() == "precious\n"


def test_a_worktree_without_its_git_file_is_refused_and_kept(after: Aftermath) -> None:
    reason = after.reason("git-file")
    assert ".git is missing. Put back a file .git with the one line `gitdir: " in reason
    assert "Commit, remove or ignore" not in reason
    assert "there is no commit" not in reason
    (file,) = after.d.layout.kept.glob("git-file-*/y")
    assert file.read_text() == "x\n"


def test_commits_of_a_removed_worktree_are_saved(after: Aftermath) -> None:
    assert after.outcome("worktree") == "failed"
    uid = after.d.items()["worktree"].uid
    refs = git(
        after.d.layout.hub("app"), "for-each-ref", "--format=%(refname)", f"refs/harness/salvage/{uid}"
    )
    assert refs
    assert git(after.d.layout.hub("app"), "show", f"{refs.splitlines()[0]}:y") == "x"


def test_a_submodule_is_refused(after: Aftermath) -> None:
    assert ".gitmodules" in after.reason("submodule")
    assert b".gitmodules" not in after.files()


def test_a_link_that_leads_out_is_stored_and_never_followed(after: Aftermath) -> None:
    assert after.merged("link-out") == 1
    assert git(after.d.app, "ls-tree", "main", "link-out").startswith("120000")
    assert contents(after.at.outside) == after.outside


def test_names_that_are_no_text_are_names(after: Aftermath) -> None:
    assert after.merged("newline") == 1
    assert {b"new\nline", b'q"uote', b"latin\xe9"} <= set(after.files())


@needs_sandbox
def test_an_agent_cannot_push_to_the_person(after: Aftermath) -> None:
    """Not past the gates, not to another branch, and not into their checkout."""
    assert after.merged("push") == 1
    assert git(after.d.app, "branch", "--format=%(refname:short)").split() == ["main", "work"]
    assert git(after.d.app, "rev-parse", "work") != git(after.d.app, "rev-parse", "main")
    assert git(after.d.app, "status", "--porcelain") == ""
    for line in git(after.d.app, "log", "--first-parent", "--format=%P", f"{after.first}..main").splitlines():
        assert len(line.split()) == 2  # the target moves by merges of ours alone


# ---- the queue and the state -----------------------------------------------------------------------------------------


@needs_sandbox
@pytest.mark.parametrize("attack", ["forges-end", "forges-others"])
def test_a_cell_cannot_be_forged(after: Aftermath, attack: str) -> None:
    end = after.attempt(attack).end
    assert end is not None
    assert end.by.startswith("agent-")
    ends = list(after.d.layout.queue.rglob("*.end"))
    assert ends
    assert [(p, text) for p in ends if b'"by": "evil"' in (text := p.read_bytes())] == []
    assert not list(after.d.layout.queue.rglob("0.end"))


@needs_sandbox
def test_an_agent_cannot_drop_work(after: Aftermath) -> None:
    assert "evil-drop" not in after.d.items()


@needs_sandbox
def test_an_agent_cannot_pause_drain_or_stop_the_daemon(after: Aftermath) -> None:
    assert os.listdir(after.d.layout.control) == []
    assert not after.d.events("drain_started")


@needs_sandbox
def test_an_agent_cannot_disturb_reports_bells_and_the_configuration(after: Aftermath) -> None:
    assert json.loads(after.d.layout.config.read_text())["v"] == 1
    assert len(after.d.events("coordinator_started")) == 1


@needs_sandbox
def test_an_agent_can_neither_read_nor_replace_the_configuration_as_it_was_validated(
    after: Aftermath,
) -> None:
    assert git(after.d.app, "show", "main:mine") == "mine"
    assert git(after.d.app, "show", "main:seen") == ""
    kept = json.loads(after.d.layout.validated.read_text())
    assert kept["source"]["text"] == after.d.layout.config.read_text()


@needs_sandbox
def test_an_agent_reads_its_own_prompt_and_nobody_elses(after: Aftermath) -> None:
    assert "Item: reads-others" in git(after.d.app, "show", "main:own")
    assert set(re.findall(r"Item: (\S+)", git(after.d.app, "show", "main:others"))) == {"reads-others"}


@needs_sandbox
def test_an_agent_cannot_touch_the_logs_of_any_session(after: Aftermath) -> None:
    for name in ("victim", "sessions"):
        assert json.loads((after.folder(name) / "summary.json").read_text())["item"] == name


# ---- the disk --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attack", ["many-files", "fills-tmp", "read-only"])
def test_temporary_files_go_with_the_attempt_however_many_big_or_read_only(
    after: Aftermath, attack: str
) -> None:
    assert after.outcome(attack) == "done"
    assert not os.path.lexists(after.folder(attack) / "tmp")
    if attack == "fills-tmp":
        assert not Path(git(after.d.app, "show", "main:where")).exists()


def test_output_is_capped(after: Aftermath) -> None:
    assert "more than 1 MiB" in after.reason("chatty")
    assert (
        after.folder("chatty") / "stdout.1.log"
    ).stat().st_size < 512 << 20  # looked at now and then, not at each byte


def test_a_link_in_the_place_of_a_cache_to_keep_leads_nowhere(after: Aftermath) -> None:
    assert after.merged("keep-link") == 1
    assert contents(after.at.outside) == after.outside


@needs_sandbox
def test_an_agent_cannot_write_anywhere_else(after: Aftermath) -> None:
    assert after.outcome("outside") == "done"
    assert contents(after.at.outside) == after.outside


# ---- secrets and terminals -------------------------------------------------------------------------------------------


@needs_sandbox
def test_credentials_are_hidden_from_agents_and_from_gates(after: Aftermath) -> None:
    """The gate `peeks` is red for everybody when it sees the key: in the worktree, and on the merged tree."""
    assert after.merged("reads-key") == 1
    assert b"stolen" in after.files()
    argv = ["git", "grep", "-a", "-c", SECRET, "main"]
    assert subprocess.run(argv, cwd=after.d.app, check=False).returncode == 1
    assert SECRET.encode() not in (after.folder("reads-key") / "stdout.1.log").read_bytes()


def test_a_key_that_an_agent_prints_is_said_by_nobody_else(after: Aftermath) -> None:
    assert after.outcome("leaks") == "failed"
    assert SECRET.encode() not in after.everything_said()
    assert SECRET not in (after.folder("leaks") / "summary.json").read_text()


@pytest.mark.parametrize(
    "argv", [("show", "controls"), ("status",), ("events",), ("logs", "agent-1")], ids=" ".join
)
def test_no_control_character_of_an_agent_reaches_the_terminal(
    after: Aftermath, argv: tuple[str, ...]
) -> None:
    assert after.outcome("controls") == "failed"
    root = after.d.layout.config.parent
    done = subprocess.run(
        [sys.executable, "-P", "-m", "harness", "--root", str(root), *argv],
        capture_output=True,
        env=environment(),
        cwd="/",
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    assert re.findall(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", done.stdout.decode()) == []


# ---- all of it -------------------------------------------------------------------------------------------------------


def test_innocent_items_are_merged_once(after: Aftermath) -> None:
    for name in ("victim", *(f"innocent-{k}" for k in range(INNOCENTS))):
        assert after.merged(name) == 1
        assert len(after.d.items()[name].attempts) == 1


def test_the_daemon_never_blinked(after: Aftermath) -> None:
    report = after.d.coordinator()
    assert report is not None
    assert (report.pid, report.state) == (after.pid, "running")
    assert not after.d.events("merger_died")
    assert not after.d.events("worker_died")
    assert not after.d.events("process_failed")


def test_the_store_and_the_hub_are_whole(after: Aftermath) -> None:
    disk = Disk(after.d.layout, SystemClock())
    try:
        assert [v for v in check(disk, alive=lambda _: True) if not v.harmless] == []
    finally:
        disk.close()
    hub = after.d.layout.hub("app")
    git(hub, "rev-list", "--objects", "--all", "--quiet")
    done = subprocess.run(
        ["git", "fsck", "--no-dangling"], cwd=hub, capture_output=True, text=True, check=False
    )
    said = [
        line for line in (done.stdout + done.stderr).splitlines() if re.match("missing|broken|error in", line)
    ]
    assert [line for line in said if "gitmodules" not in line] == []  # that of `submodule`, salvaged


def test_no_process_of_any_attempt_is_left(after: Aftermath) -> None:
    until(lambda: not [w for w in after.d.ours() if b"jail.main" in _command(w)], 20, what="no jail is left")


def _command(who: ProcessId) -> bytes:
    try:
        return Path(f"/proc/{who.pid}/cmdline").read_bytes()
    except OSError:
        return b""


# ---- without a sandbox: stated plainly, and repaired where that is possible ------------------------------------------

OPEN = ("settings", "stash", "push", "branches-of-others")


@pytest.fixture(scope="module")
def unboxed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aftermath]:
    at = Place(tmp_path_factory.mktemp("open"))
    at.outside.mkdir()
    hub = at.root / "state/repos/app.git"
    scripts = {name: script for name, script in attacks(at).items() if name in OPEN}
    scripts["branches-of-others"] = (
        f"cd {hub}; for b in $(git for-each-ref --format='%(refname:short)' refs/heads/harness); do "
        "git branch -D $b; git update-ref -d refs/heads/$b; done; exit 0"
    )
    with daemon(at.base / "d", workers=2, sandbox="none", heal={"rounds": 0}) as d:
        made = Aftermath(d, at, 0, {}, git(d.app, "rev-parse", "main"))
        made.pid = d.start().pid
        wait = f"while [ ! -e {at.go} ]; do sleep 0.05; done; echo victim > victim"
        d.drop("victim", {"prompt": wait, "priority": 0})
        d.until_running("victim")
        for name in OPEN:
            d.drop(name, {"id": name, "prompt": scripts[name], "commit": "optional", "max_attempts": 1})
            d.until_state(name, "merged", "done", "parked", timeout_s=120)
        at.go.touch()
        d.until_state("victim", "merged", "parked", timeout_s=120)
        yield made


def test_without_a_sandbox_a_changed_hub_is_restored_and_reported_before_our_git_obeys_it(
    unboxed: Aftermath,
) -> None:
    assert not unboxed.at.trap.exists()
    told = ", ".join(e.get("files", "") for e in unboxed.d.events("hub_tampered")).split(", ")
    assert {"config", "hooks/post-checkout", "info/attributes"} <= set(told)
    assert "evil" not in (unboxed.d.layout.hub("app") / "config").read_text()
    assert unboxed.merged("settings") == 1


def test_without_a_sandbox_no_stash_stays_for_the_next_agent(unboxed: Aftermath) -> None:
    assert unboxed.merged("stash") == 1
    assert git(unboxed.d.layout.hub("app"), "for-each-ref", "refs/stash") == ""


def test_without_a_sandbox_a_branch_removed_under_an_attempt_costs_it_the_attempt_and_no_work(
    unboxed: Aftermath,
) -> None:
    victim = unboxed.d.items()["victim"]
    assert [a.end.outcome.value for a in victim.attempts if a.end] == ["failed", "done"]
    assert unboxed.merged("victim") == 1
    refs = git(
        unboxed.d.layout.hub("app"),
        "for-each-ref",
        "--format=%(refname)",
        f"refs/harness/salvage/{victim.uid}",
    )
    assert git(unboxed.d.layout.hub("app"), "show", f"{refs.splitlines()[0]}:victim") == "victim"


def test_without_a_sandbox_a_push_to_the_person_is_not_prevented_and_breaks_nothing_of_ours(
    unboxed: Aftermath,
) -> None:
    """docs/containment.md says so. The target follows the person's branch, whoever moved it."""
    assert "evil" in git(unboxed.d.app, "branch", "--format=%(refname:short)").split()
    assert unboxed.d.state("push") == "merged"
    assert not unboxed.d.events("process_failed")
