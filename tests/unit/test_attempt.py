"""One attempt, from its claim to what its end will say: real git, real agents (scripts), real gates; no daemon."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from harness import sessionfolder, sessionrecord
from harness.clock import SystemClock, parse_rfc3339
from harness.config import load
from harness.containment import Containment
from harness.errors import GitError
from harness.events import EventStream, read
from harness.hub import BrokenCommitError, GitCommandError, GitInterrupted, Hub
from harness.limits import Kind, LimitRecord, Limits
from harness.model import Act, Claim, Outcome
from harness.runner import Ended, EndReason, Runner
from harness.sessionfolder import SessionFolder
from harness.sessionrecord import RunRecord, SessionRecord
from harness.spend import Ledger
from harness.store.attempts import Claimed
from harness.worker.attempt import AttemptRun
from harness.worker.result import Broken, Result
from tests.hubs import Desk, desk, git, person
from tests.stores import World

pytestmark = pytest.mark.timeout(120)
SHELL = {"adapter": "command", "argv": ["sh", "{prompt_file}"], "exit_codes": {"75": "rate_limit"}}


@dataclass
class Bench:
    """A root, a person's repository, and attempts on it, one after the other."""

    world: World
    at: Desk
    why: list[str] = field(default_factory=list)
    """Not empty: the attempt must not go on."""
    stages: list[str] = field(default_factory=list)
    beat: Callable[[], str | None] = lambda: None

    def claim(self, prompt: str, **fields: Any) -> Claimed:
        name = fields.pop("id", f"item-{len(self.stages)}")
        return self.world.claim(self.world.add(id=name, prompt=prompt, **fields))

    def attempt(self, owned: Claimed, slot: str = "agent-1") -> AttemptRun:
        config = load(self.world.layout.config)
        self.at.project = config.projects["app"]
        return AttemptRun(
            layout=self.world.layout,
            config=config,
            clock=SystemClock(),
            runner=Runner(clock=SystemClock(), containment=Containment(), beat=self.beat, beat_s=0.05),
            events=EventStream(self.world.layout, SystemClock(), slot),
            slot=slot,
            owned=owned,
            project=config.projects["app"],
            hub=self.at.ready(),
            environ=os.environ,
            limits=Limits(self.world.layout, SystemClock()),
            claims={},
            stage=lambda state, _: self.stages.append(state),
            broken=lambda: self.why[0] if self.why else None,
        )

    def run(self, prompt: str, **fields: Any) -> Result:
        return self.attempt(self.claim(prompt, **fields)).run()

    def said(self, kind: str) -> list[dict[str, Any]]:
        return [e for _, e in read(self.world.layout) if e["event"] == kind]

    def show(self, sha: str | None, file: str) -> str:
        assert sha
        return git(self.world.layout.hub("app"), "show", f"{sha}:{file}")


Configure = Callable[..., Bench]


@pytest.fixture
def configure(world: World, tmp_path: Path) -> Configure:
    """A bench with these settings: `project` and anything at the top of config.yaml."""
    upstream = person(tmp_path / "app")

    def make(project: dict[str, Any] | None = None, **settings: Any) -> Bench:
        config = {
            "v": 1,
            "durability": "process",
            "projects": {"app": {"path": str(upstream), "agent": "claude", **(project or {})}},
            "agents": {"claude": SHELL, "shell": SHELL},
            "heal": {"rounds": 0},
        } | settings
        world.layout.config.write_text(json.dumps(config))
        return Bench(world, desk(world.layout, upstream))

    return make


@pytest.fixture
def b(configure: Configure) -> Bench:
    return configure()


def failure(result: Result) -> str:
    assert result.outcome is Outcome.FAILED
    assert result.sha is None
    return result.reason


# ---- results ---------------------------------------------------------------------------------------------------------


def test_a_commit_of_the_agent_is_the_result_and_is_pinned(b: Bench) -> None:
    result = b.run("echo x > new; git add -A; git commit -q -m work")
    assert (result.outcome, result.salvage) == (Outcome.DONE, False)
    assert b.show(result.sha, "new") == "x"
    assert git(
        b.world.layout.hub("app"), "for-each-ref", "--points-at", str(result.sha), "refs/harness/attempt"
    )
    assert b.stages == ["preparing", "running", "gates", "submitting"]


def test_what_the_agent_left_uncommitted_is_committed_with_the_items_name(b: Bench) -> None:
    result = b.run("echo x > new; rm a.txt", id="tidy", title="tidy up")
    assert b.show(result.sha, "new") == "x"
    assert git(b.world.layout.hub("app"), "log", "-1", "--format=%s", str(result.sha)) == "tidy: tidy up"


@pytest.mark.parametrize("long", [False, True], ids=["here", "elsewhere"])
def test_temporary_files_of_a_killed_attempt_are_gone_with_the_next_one_of_the_slot(
    b: Bench, monkeypatch: pytest.MonkeyPatch, long: bool
) -> None:
    monkeypatch.setattr(sessionfolder, "MAX_TMP_CHARS", 0 if long else 4096)

    for slot in ("agent-1", "agent-2"):
        killed = b.attempt(b.claim("true", id=slot), slot)
        killed.folder.make()
        (killed.folder.tmp / "big").write_text("x")
        (killed.folder.scratch / "gate").mkdir()
    real = [b.world.layout.scratch(slot).resolve() for slot in ("agent-1", "agent-2")]
    assert all((path / "tmp/big").exists() for path in real)
    assert long == (real[0].parent != b.world.layout.tmp)
    result = b.run("echo x > new; ls -A $TMPDIR $TMPDIR/.. > seen")
    assert "big" not in b.show(result.sha, "seen")
    assert "gate" not in b.show(result.sha, "seen")
    assert [path.exists() for path in real] == [False, True]
    assert [path.name for path in b.world.layout.tmp.iterdir()] == ["agent-2"]


def test_with_commit_by_agent_what_is_left_is_a_failure_that_names_it(configure: Configure) -> None:
    b = configure({"commit_by": "agent"})
    assert "untracked files: new" in failure(b.run("echo x > new"))


@pytest.mark.parametrize(("commit", "outcome"), [("required", Outcome.FAILED), ("optional", Outcome.DONE)])
def test_an_attempt_without_a_commit_is_done_only_when_none_is_required(
    b: Bench, commit: str, outcome: Outcome
) -> None:
    result = b.run("true", commit=commit)
    assert (result.outcome, result.sha) == (outcome, None)


def test_an_item_without_commits_is_done_whatever_its_agent_left(b: Bench) -> None:
    result = b.run("echo x > new", commit="none")
    assert (result.outcome, result.sha) == (Outcome.DONE, None)


def test_an_agent_that_fails_has_failed_however_much_it_committed(b: Bench) -> None:
    assert "exit 3" in failure(b.run("echo x > new; git add -A; git commit -q -m work; exit 3"))


def test_an_agent_that_is_not_configured_any_more_is_no_fault_of_the_item(b: Bench) -> None:
    owned = b.claim("true")
    config = json.loads(b.world.layout.config.read_text())
    del config["agents"]["claude"]
    config["projects"]["app"]["agent"] = "shell"
    b.world.layout.config.write_text(json.dumps(config))
    result = b.attempt(owned).run()
    assert result.outcome is Outcome.RELEASED
    assert "'claude' is no longer in config.yaml" in result.reason
    assert b.stages == []


def test_each_failed_attempt_tries_the_next_agent_of_the_list_and_stays_at_the_last(b: Bench) -> None:
    uid = b.world.add(id="a", agent=["claude", "shell"], max_attempts=5)
    kinds = []
    for _ in range(3):
        owned = b.world.claim(uid)
        kinds.append(b.attempt(owned).kind)
        b.world.end(owned, Outcome.FAILED)
    assert kinds == ["claude", "shell", "shell"]


def limit_of(b: Bench) -> LimitRecord:
    (record,) = Limits(b.world.layout, SystemClock()).all()
    return record


def test_a_limit_gives_the_attempt_back_and_stops_the_credential_until_it_has_passed(b: Bench) -> None:
    result = b.run("exit 75")
    assert (result.outcome, result.not_before, result.ours) == (Outcome.RELEASED, None, False)
    record = limit_of(b)
    assert (record.credential, record.kind, record.agent) == ("agent.claude", Kind.RATE, "claude")
    assert parse_rfc3339(record.until) > SystemClock().wall()
    again = b.run("true")
    assert (again.outcome, b.stages[-1]) == (Outcome.RELEASED, "preparing")
    assert "waits for credential agent.claude: rate until" in again.reason


@pytest.mark.parametrize(
    ("said", "longest_s"), [("nan", 2.0), ("-5", 2.0), ("1e999", 2.0), ("x", 2.0), ("3600", 3602.0)]
)
def test_whatever_a_tool_says_of_a_limit_is_a_time(configure: Configure, said: str, longest_s: float) -> None:
    pattern = {"match": "limit", "class": "rate_limit", "retry_after": r"limit (\S+)"}
    b = configure(agents={"claude": SHELL | {"patterns": [pattern]}})
    assert b.run(f"echo limit {said}; exit 1").outcome is Outcome.RELEASED
    left_s = parse_rfc3339(limit_of(b).until) - SystemClock().wall()
    assert longest_s - 5 < left_s <= longest_s


def test_an_attempt_has_a_time_limit(b: Bench) -> None:
    assert "timed_out" in failure(b.run("sleep 100", timeout_s=0.3))


# ---- gates and healing -----------------------------------------------------------------------------------------------

GOOD = {"name": "good", "run": "grep -q good result || { echo 'say' 'good'; exit 1; }"}
HEALS = 'if grep -q "say goo[d]" "$HARNESS_PROMPT_FILE"; then echo good > result; else echo bad > result; fi'


def test_a_red_gate_goes_back_to_the_agent_with_its_output(configure: Configure) -> None:
    b = configure({"gates": [GOOD]}, heal={"rounds": 2})
    result = b.run(HEALS)
    assert b.show(result.sha, "result") == "good"
    assert [(e["round"], e["gates"]) for e in b.said("heal_started")] == [(1, ["good"])]
    assert (
        [e["gate"] for e in b.said("gate_failed")] == [e["gate"] for e in b.said("gate_passed")] == ["good"]
    )


def test_a_gate_that_stays_red_fails_the_attempt_with_its_last_words(configure: Configure) -> None:
    b = configure({"gates": [GOOD]}, heal={"rounds": 1})
    reason = failure(b.run("echo bad > result"))
    assert "gate good: exit 1 (in round 2 of 2)" in reason
    assert "say good" in reason
    assert len(b.said("agent_started")) == 2


def test_healing_ends_with_the_time_of_the_attempt(configure: Configure) -> None:
    gate = {"name": "slow", "run": "sleep 1; false"}
    b = configure({"gates": [gate]}, heal={"rounds": 50})
    failure(b.run("echo x > result", timeout_s=1.0))
    assert len(b.said("agent_started")) == 1


def test_a_gate_that_is_not_required_is_reported_and_stops_nobody(configure: Configure) -> None:
    b = configure({"gates": [{"name": "style", "run": "false", "required": False}]})
    assert b.run("echo x > new").outcome is Outcome.DONE
    assert [e["gate"] for e in b.said("gate_failed")] == ["style"]


def test_protected_paths_may_be_changed_only_by_items_that_say_so(configure: Configure) -> None:
    b = configure({"protected": ["a.txt"]})
    assert "a.txt" in failure(b.run("echo x > a.txt"))
    assert b.run("echo x > a.txt", protected=["a.txt"]).outcome is Outcome.DONE


def test_a_result_that_a_gate_has_moved_was_not_judged(configure: Configure) -> None:
    b = configure({"gates": [{"name": "evil", "run": "git commit -q --allow-empty -m evil"}]})
    for commit in ("required", "optional"):
        assert "the branch was moved while the gates ran" in failure(b.run("echo x > new", commit=commit))


def test_a_commit_that_can_never_be_merged_runs_no_gate(configure: Configure) -> None:
    b = configure({"gates": [{"name": "never", "run": "false"}]})
    reason = failure(b.run("git checkout -q --orphan other; git commit -q -m other"))
    assert "does not contain" in reason
    assert [e["gate"] for e in b.said("gate_failed")] == ["commit"]


# ---- setup -----------------------------------------------------------------------------------------------------------


def setups(b: Bench) -> list[bool]:
    return [e["ok"] for e in b.said("setup_finished")]


def test_setup_runs_for_a_new_worktree_and_again_only_when_an_input_changed(configure: Configure) -> None:
    setup = {"run": "mkdir -p cache && echo done > cache/x", "inputs": ["a.txt", "missing"]}
    b = configure({"setup": setup, "keep": ["cache"]})
    for _ in range(2):
        b.run("true", commit="none")
        assert setups(b) == [True]
    git(b.at.upstream, "switch", "-q", "main")
    (b.at.upstream / "a.txt").write_text("changed\n")
    git(b.at.upstream, "commit", "-q", "-a", "-m", "change")
    b.run("true", commit="none")
    assert setups(b) == [True, True]


def test_a_setup_that_fails_fails_the_attempt_and_runs_again_in_the_next(configure: Configure) -> None:
    b = configure({"setup": {"run": "echo starting; echo no network; exit 7"}})
    assert failure(b.run("true")) == "setup failed (exit 7): no network"
    assert failure(b.run("true")) == "setup failed (exit 7): no network"
    assert b.said("agent_started") == []


def test_a_setup_that_says_nothing_and_takes_too_long_is_ended(configure: Configure) -> None:
    b = configure({"setup": {"run": "sleep 100", "timeout_s": 0.2}})
    assert failure(b.run("true")) == "setup failed (timed_out): no output"


# ---- stopped, broken, lost -------------------------------------------------------------------------------------------


def test_an_attempt_that_was_decided_by_another_goes_no_further(b: Bench) -> None:
    owned = b.claim("sleep 100")

    def beat() -> str | None:
        if "running" in b.stages:
            b.why.append("cancelled by me")
            return b.why[0]
        return None

    b.beat = beat
    with pytest.raises(Broken, match="cancelled by me"):
        b.attempt(owned).run()


def test_a_gate_that_was_stopped_says_nothing_about_the_result(configure: Configure) -> None:
    b = configure({"gates": [{"name": "slow", "run": "sleep 100"}]})
    b.beat = lambda: "the harness is stopping" if "gates" in b.stages and b.said("agent_finished") else None
    result = b.run("echo x > new; git add -A; git commit -q -m work")
    assert result.outcome is Outcome.RELEASED


def raising(error: Exception) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> Any:
        raise error

    return fail


def git_says(text: str) -> GitCommandError:
    ended = Ended(reason=EndReason.EXITED, exit_code=128, stderr=text.encode(), duration_s=0.1)
    return GitCommandError(("status",), ended, where=Path())


def test_git_that_was_stopped_gives_the_attempt_back(b: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = Ended(reason=EndReason.STOPPED, stop_reason="stopping", duration_s=0.1)
    monkeypatch.setattr(Hub, "prepare", raising(GitInterrupted(("status",), ended, where=Path())))
    result = b.run("true")
    assert (result.outcome, result.reason) == (Outcome.RELEASED, "git was stopped")


def test_a_hub_that_does_not_work_gives_the_attempt_back_for_a_while(
    b: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Hub, "prepare", raising(GitError("no such hub", where="state/repos/app.git")))
    result = b.run("true")
    assert (result.outcome, result.ours) == (Outcome.RELEASED, True)
    assert result.reason == "no such hub (state/repos/app.git)"
    assert result.not_before
    assert result.not_before > SystemClock().wall() + 10


def test_an_agent_that_breaks_its_repository_has_failed(b: Bench) -> None:
    script = 'rm "$(git rev-parse --git-dir)/HEAD"; exit 0'
    assert "what was left cannot be read" in failure(b.run(script))


def test_a_machine_that_fails_while_git_reads_the_result_costs_no_attempt(
    b: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        Hub, "status", raising(git_says("error: unable to write file: No space left on device"))
    )
    result = b.run("echo x > new")
    assert (result.outcome, result.ours) == (Outcome.RELEASED, True)


def test_a_commit_that_lacks_objects_is_a_failure(b: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Hub, "pin", raising(BrokenCommitError("cannot be read whole")))
    assert failure(b.run("echo x > new")) == "the commit cannot be used: cannot be read whole"


def test_a_disk_that_is_full_costs_no_attempt_and_a_bug_of_ours_is_not_hidden(
    b: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "session")
    monkeypatch.setattr(SessionFolder, "make", raising(full))
    result = b.run("true")
    assert (result.outcome, result.reason) == (Outcome.RELEASED, "No space left on device (session)")
    monkeypatch.setattr(SessionFolder, "make", raising(OSError(errno.EBADF, "Bad file descriptor")))
    with pytest.raises(OSError, match="Bad file"):
        b.run("true")


def test_a_hub_that_the_agent_changed_is_restored_and_reported(b: Bench) -> None:
    b.run('echo x > new; git config core.fsmonitor "touch trap"')
    told = [*b.said("hub_tampered"), *[v for e, v in b.at.events if e.value == "hub_tampered"]]
    assert told
    assert "fsmonitor" not in (b.world.layout.hub("app") / "config").read_text()


# ---- nothing is lost -------------------------------------------------------------------------------------------------


def test_what_a_failed_attempt_left_is_salvaged(b: Bench) -> None:
    run = b.attempt(b.claim("echo precious > work; exit 1"))
    assert run.run().salvage
    run.rescue()
    refs = git(b.world.layout.hub("app"), "for-each-ref", "--format=%(refname)", "refs/harness/salvage")
    assert b.show(refs.splitlines()[0], "work") == "precious"


def test_an_attempt_that_never_had_a_worktree_has_nothing_to_salvage(b: Bench) -> None:
    b.attempt(b.claim("true")).rescue()


def test_survivors_of_an_agent_are_ended_before_its_gates_and_reported(b: Bench) -> None:
    b.run("sleep 1000 & echo x > new", id="spawns")
    assert [e["number"] for e in b.said("survivors_killed")] == [1]


@pytest.mark.parametrize("name", ["no-such-tool", "/no/such/tool"])
def test_a_tool_that_is_not_installed_costs_no_attempt_and_stops_nobody_else(
    configure: Configure, name: str
) -> None:
    b = configure(agents={"claude": {"adapter": "command", "argv": [name, "{prompt_file}"]}})
    result = b.run("x")
    assert (result.outcome, result.ours, result.waits) == (Outcome.RELEASED, False, "")
    assert result.reason == f"crash: {name} is not installed, or not on the PATH of harness"
    assert result.not_before
    assert not b.said("limit_met")


def test_a_tool_that_an_item_has_moved_away_is_the_items_own_matter(configure: Configure) -> None:
    b = configure(agents={"claude": {"adapter": "command", "argv": ["./tool.sh", "{prompt_file}"]}})
    assert "tool.sh" in failure(b.run("x"))


def test_a_key_that_a_tool_shows_is_in_no_reason(configure: Configure, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("sk-very-secret-0123456789\n")
    key.chmod(0o600)
    pattern = {"match": "bad key", "class": "auth"}
    b = configure(
        agents={
            "claude": {
                "adapter": "command",
                "argv": ["sh", "{prompt_file}"],
                "patterns": [pattern],
                "credential": "team",
            }
        },
        credentials={"team": {"variable": "TEAM_KEY", "file": str(key)}},
    )
    result = b.run('echo "bad key $TEAM_KEY"; exit 1')
    assert result.reason.startswith("auth: bad key ")
    assert "very-secret" not in result.reason
    places = [*b.world.layout.limits.glob("*.json"), *b.world.layout.interrupts.glob("*.json")]
    assert len(places) == 2
    assert all("very-secret" not in path.read_text() for path in places)


# ---- money -----------------------------------------------------------------------------------------------------------

PAID = {
    "adapter": "command",
    "argv": ["sh", "{prompt_file}"],
    "output": "jsonl",
    "fields": {"cost_usd": "usd", "tokens_in": "in", "tokens_out": "out"},
}
COSTS = """echo '{"usd": 0.25, "in": 60, "out": 40}'; echo x > new\n"""


def ledger_lines(b: Bench) -> list[dict[str, Any]]:
    return [
        json.loads(x) for path in b.world.layout.spend.glob("*.jsonl") for x in path.read_text().splitlines()
    ]


def test_what_a_run_has_used_is_in_the_ledger(configure: Configure) -> None:
    b = configure(agents={"claude": PAID})
    owned = b.claim(COSTS, convoy="login")
    run = b.attempt(owned)
    assert run.run().outcome is Outcome.DONE
    (line,) = ledger_lines(b)
    assert (line["kind"], line["uid"], line["n"], line["round"]) == ("spent", owned.uid, 1, 1)
    assert (line["usd"], line["tokens"]) == (0.25, 100)
    assert (line["project"], line["convoy"], line["agent"]) == ("app", "login", "claude")
    run.wallet.release()
    assert len(ledger_lines(b)) == 1  # nothing was reserved: there is no budget


def test_a_tool_that_tells_nothing_opens_no_ledger(b: Bench) -> None:
    assert b.run("echo x > new").outcome is Outcome.DONE
    assert not list(b.world.layout.spend.iterdir())


def test_with_a_budget_what_a_run_may_cost_is_reserved_before_it(configure: Configure) -> None:
    b = configure(agents={"claude": PAID}, budgets={"fleet": {"usd": 2}, "reserve_usd": 1.5})
    run = b.attempt(b.claim(COSTS))
    assert run.run().outcome is Outcome.DONE
    second = b.attempt(b.claim(COSTS)).run()
    assert second.outcome is Outcome.RELEASED
    assert second.reason == (
        "waits for budget fleet: 0.25 of 2.00 USD (1.25 reserved) spent, an attempt needs 1.50 USD"
    )
    assert second.not_before
    run.wallet.release()
    assert b.attempt(b.claim(COSTS)).run().outcome is Outcome.DONE
    assert [e["kind"] for e in ledger_lines(b)] == ["reserve", "spent", "release", "reserve", "spent"]
    assert len(b.said("agent_started")) == 2


def test_a_correction_for_which_nothing_is_left_is_not_begun(configure: Configure) -> None:
    red = {"gates": [{"name": "never", "run": "date +%N > noise; false"}]}
    b = configure(
        red, agents={"claude": PAID}, heal={"rounds": 1}, budgets={"fleet": {"usd": 0.25}, "reserve_usd": 0.1}
    )
    result = b.run(COSTS)
    assert result.outcome is Outcome.RELEASED
    assert result.reason.startswith("waits for budget fleet: 0.25 of 0.25 USD spent")


@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        ({"max_budget_usd": 0.25}, "budget: 0.25 of the 0.25 USD that this item may cost are spent"),
        ({"max_budget_tokens": 100}, "budget: 100 of the 100 tokens that this item may use are used"),
    ],
    ids=["USD", "tokens"],
)
def test_an_item_whose_own_budget_is_spent_fails_without_another_run(
    configure: Configure, limit: dict[str, Any], reason: str
) -> None:
    red = {"gates": [{"name": "never", "run": "date +%N > noise; false"}]}
    b = configure(red, agents={"claude": PAID}, heal={"rounds": 1})
    owned = b.claim(COSTS, **limit)
    assert failure(b.attempt(owned).run()).startswith(reason)
    assert failure(b.attempt(replace(owned, n=2)).run()).startswith(reason)
    assert len(b.said("agent_started")) == 1


GOES_ON = """echo '{"usd": 0.25, "in": 60, "out": 40}'; echo x > new; sleep 1000\n"""
"""Says what it has used, and would use more."""


@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        ({"max_budget_usd": 0.2}, "budget: 0.25 USD of 0.20"),
        ({"max_budget_tokens": 99}, "budget: 100 tokens of 99"),
    ],
    ids=["USD", "tokens"],
)
def test_a_run_that_passes_the_budget_of_its_item_is_stopped(
    configure: Configure, limit: dict[str, Any], reason: str
) -> None:
    b = configure(agents={"claude": PAID | {"stop": ["KILL"]}})
    assert reason in failure(b.attempt(b.claim(GOES_ON, **limit)).run())
    assert [e["usd"] for e in ledger_lines(b)] == [0.25]


def test_a_run_that_passes_a_budget_of_others_is_stopped_and_costs_no_attempt(configure: Configure) -> None:
    day = {"day": {"usd": 0.2}, "reserve_usd": 0.1}
    b = configure(agents={"claude": PAID | {"stop": ["KILL"]}}, budgets=day)
    result = b.run(GOES_ON)
    assert result.outcome is Outcome.RELEASED
    assert result.reason == "waits for budget day: 0.25 of 0.20 USD spent, an attempt needs 0.10 USD"
    assert result.waits == "budget"


def test_a_run_that_a_shared_budget_has_stopped_costs_no_attempt_although_there_is_room_again(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As at midnight."""
    day = {"day": {"usd": 0.2}, "reserve_usd": 0.1}
    b = configure(agents={"claude": PAID | {"stop": ["KILL"]}}, budgets=day)
    monkeypatch.setattr(Ledger, "short", lambda *_: None)
    monkeypatch.setattr(Ledger, "reserve", lambda *_: None)
    result = b.run(GOES_ON)
    assert (result.outcome, result.waits) == (Outcome.RELEASED, "budget")


def test_what_the_run_of_a_killed_worker_has_used_is_charged_once_by_the_next_attempt(
    configure: Configure,
) -> None:
    b = configure(agents={"claude": PAID})
    owned = b.claim(COSTS)
    claim = Claim(n=1, act=Act.RUN, owner=b.world.me.identity, claimed_at="2027-01-15T08:00:00Z")
    folder = SessionFolder(
        b.world.layout.session("2027-01-15", owned.uid, 1), b.world.layout.scratch("agent-1")
    )
    folder.make()
    run = RunRecord(round=1, attempt=f"{owned.uid}.1", slot="agent-1", started_at="2027-01-15T08:00:01Z")
    known = SessionRecord(
        item="i", uid=owned.uid, agent="claude", adapter="command", session="s", runs=(run,)
    )
    sessionrecord.write(folder.summary, known)
    folder.stdout(1).write_text('{"usd": 0.5}\n{"usd": 0.75}\n')
    for n in (2, 3):
        second = b.attempt(replace(owned, n=n))
        second.claims = {1: claim}
        assert second.run().outcome is Outcome.DONE
    assert [(e["n"], e["usd"]) for e in ledger_lines(b)] == [(1, 0.75), (2, 0.25), (3, 0.25)]
    settled = sessionrecord.read(folder.summary)
    assert settled is not None
    assert settled.runs[0].outcome
