"""The merger's process: what it leaves when it dies, what it obeys, and who ends it."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from harness import cgroups, procs
from harness.procs import ProcessId
from tests.daemons import Daemon, daemon, git
from tests.support import until


def commit(name: str, text: str = "x") -> str:
    return f"echo {text} > {name} && git add -A && git commit -qm {name}"


def merger(d: Daemon) -> ProcessId | None:
    started = [e["pid"] for e in d.events("merger_spawned")]
    return ProcessId.of(started[-1]) if started else None


def refused(d: Daemon) -> bool:
    return bool((r := d.coordinator()) and any("not published" in p for p in r.problems))


def test_what_a_killed_merger_had_merged_and_not_published_is_published_by_the_next(tmp_path: Path) -> None:
    """Nothing is submitted any more, and no report says that anything is to be published: only the hub knows."""
    with daemon(tmp_path) as d:
        go = tmp_path / "go"
        hook = d.app / ".git/hooks/pre-receive"
        hook.write_text(
            f"#!/bin/sh\ntouch {tmp_path}/pushing\nwhile [ ! -e {go} ]; do sleep 0.05; done\nexit 1\n"
        )
        hook.chmod(0o755)
        d.start()
        d.drop("a", {"prompt": commit("a")})
        until((tmp_path / "pushing").exists, 40, what=d.tail())
        d.until_state("a", "merged")
        old = merger(d)
        assert old
        assert d.merges() == []
        os.kill(old.pid, signal.SIGKILL)
        until(lambda: not old.alive(), 20)
        hook.write_text("#!/bin/sh\nexit 0\n")
        go.touch()
        until(lambda: len(d.merges()) == 1, 40, what=d.tail())


def test_a_merger_that_hangs_in_its_gates_is_killed_and_the_next_one_goes_on(tmp_path: Path) -> None:
    flag = tmp_path / "hung"
    script = (
        f'case "$HARNESS_WORKTREE" in */merger) [ -e {flag} ] || {{ touch {flag}; exec sleep 9999; }};; esac'
    )
    settings = {
        "health": {"beat_s": 0.1, "hang_s": 1.0},
        "sandbox": "none",
        "project": {"gates": [{"name": "here", "run": script}], "merge": {"gates": ["here"]}},
    }
    with daemon(tmp_path, **settings) as d:
        d.start()
        d.drop("a", {"prompt": commit("a")})
        until(flag.exists, 40, what=d.tail())
        mark = f"{d.items()['a'].uid}.1.merge"
        gate = procs.environ_marked(mark)
        old = merger(d)
        assert old
        assert gate
        assert procs.signal(old, signal.SIGSTOP)
        d.until_state("a", "merged", timeout_s=60)
        assert not old.alive()
        assert not any(one.alive() for one in gate)
        assert len(d.events("merger_hung")) == 1
        base = cgroups.directory()
        assert base is None or not (base / cgroups.mark_name(mark)).exists()


def test_what_was_not_published_when_everything_died_is_published_by_the_next_coordinator(
    tmp_path: Path,
) -> None:
    with daemon(tmp_path) as d:
        go = tmp_path / "go"
        hook = d.app / ".git/hooks/pre-receive"
        hook.write_text(
            f"#!/bin/sh\ntouch {tmp_path}/pushing\nwhile [ ! -e {go} ]; do sleep 0.05; done\nexit 1\n"
        )
        hook.chmod(0o755)
        process = d.start()
        d.drop("a", {"prompt": commit("a")})
        until((tmp_path / "pushing").exists, 40, what=d.tail())
        process.kill()
        process.wait(10)
        old = merger(d)
        assert old
        os.kill(old.pid, signal.SIGKILL)
        until(lambda: not old.alive(), 20)
        for report in (d.layout.run / "projects").glob("*.json"):
            report.unlink()
        hook.unlink()
        go.touch()
        assert d.run_until_idle() == 0
        assert len(d.merges()) == 1


def test_a_merger_obeys_a_changed_config_at_once(tmp_path: Path) -> None:
    """The remedy for a checked-out target is a line of config.yaml and a HUP."""
    with daemon(tmp_path) as d:
        git(d.app, "switch", "-q", "main")
        process = d.start()
        d.drop("a", {"prompt": commit("a")})
        d.until_state("a", "merged")
        until(lambda: refused(d), 20, what=d.tail())
        d.config["projects"]["app"]["merge"] = {"checkout": "update"}
        d.layout.config.write_text(json.dumps(d.config))
        process.send_signal(signal.SIGHUP)
        until(lambda: len(d.merges()) == 1, 20, what=d.tail())
        assert git(d.app, "status", "--porcelain") == ""
        until(lambda: not refused(d), 20, what=d.tail())


def test_a_coordinator_ends_also_the_merger_that_another_one_started(tmp_path: Path) -> None:
    with daemon(tmp_path) as d:
        git(d.app, "switch", "-q", "main")
        first = d.start()
        d.drop("a", {"prompt": commit("a")})
        until(lambda: refused(d), 40, what=d.tail())
        old = merger(d)
        assert old
        first.kill()
        first.wait(10)
        assert old.alive()
        second = d.start()
        until(lambda: (r := d.coordinator()) and r.pid == second.pid, 20)
        second.send_signal(signal.SIGTERM)
        until(lambda: second.poll() is not None, 40, what=d.tail())
        assert not old.alive()
        assert not d.ours()


def test_two_lines_that_contradict_each_other_are_said_to_need_a_person(tmp_path: Path) -> None:
    with daemon(tmp_path) as d:
        go = tmp_path / "go"
        d.start()
        git(d.app, "switch", "-q", "main")  # so that our merge cannot be published
        d.drop("a", {"prompt": commit("README.md", "ours")})
        until(lambda: refused(d), 40, what=d.tail())
        (d.app / "README.md").write_text("theirs\n")
        git(d.app, "commit", "-qam", "theirs")
        git(d.app, "switch", "-q", "work")
        d.drop("b", {"prompt": commit("b")})
        until(
            lambda: (
                (r := d.coordinator()) and any("contradict" in p and "README.md" in p for p in r.problems)
            ),
            40,
            what=d.tail(),
        )
        git(d.app, "switch", "-q", "main")
        hub = d.layout.hub("app")
        git(
            d.app, "-c", "merge.ours.driver=true", "pull", "-q", "--no-rebase", "-X", "ours", str(hub), "main"
        )
        git(d.app, "switch", "-q", "work")
        until(
            lambda: (
                any(s.startswith("b:") for s in d.merges())
                or "b" in git(d.app, "ls-tree", "--name-only", "main").split()
            ),
            90,
            what=d.tail(),
        )
        assert git(d.app, "show", "main:README.md") == "theirs"
        go.touch()


def test_a_returned_result_of_a_paused_project_does_not_run_again_before_it_goes_on(tmp_path: Path) -> None:
    """The coordinator decides what may run; a hint of the merger's own would be taken before it looks."""
    go = tmp_path / "go"
    gates = [{"name": "here", "run": 'case "$HARNESS_WORKTREE" in */merger) exit 1;; esac'}]
    with daemon(tmp_path, project={"gates": gates, "merge": {"gates": ["here"]}}) as d:
        d.start()
        d.drop("a", {"prompt": f"while [ ! -e {go} ]; do sleep 0.05; done; {commit('a')}"})
        d.until_running("a")
        (d.layout.control / "pause.project.app").touch()
        before = d.coordinator()
        until(lambda: (r := d.coordinator()) and before and r.swept_at > before.swept_at, 20)
        go.touch()
        until(lambda: d.events("item_returned"), 40, what=d.tail())
        before = d.coordinator()
        until(lambda: (r := d.coordinator()) and before and r.swept_at > before.swept_at, 20)
        assert d.state("a") == "ready"
        assert len(d.items()["a"].attempts) == 1
        assert len(d.events("item_claimed")) == 1
