"""Sessions: real tools, run by the command adapter."""

from __future__ import annotations

import json
import os
import socket
import stat
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness import sessionrecord
from harness.agents.base import Activity, AgentEvent, Final, LostSession, Started, Stream, Usage
from harness.agents.command import CommandAdapter
from harness.agents.outcomes import Auth, BadRequest, Crash, Interrupted, Ok, RateLimit, Stalled, TimedOut
from harness.clock import SystemClock
from harness.config import Agent, Credential, OutcomeName, Pattern, PromptBy, Sandbox
from harness.containment import Containment, Policy
from harness.runner import Runner
from harness.session import Session, Subject
from harness.sessionfolder import SessionFolder, lines, make_tmp, remove, tail, tmp_folders
from harness.sessionrecord import RunRecord, Spent

Make = Callable[..., Session]
MARK = f"fix-{uuid.uuid4().hex[:12]}.1"
"""Tests run at the same time in several processes, and what bears a mark is killed."""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "tree").mkdir()
    return (tmp_path / "tree").resolve()


@pytest.fixture
def make(tmp_path: Path, tree: Path) -> Make:
    """A session of an agent with that argv; keywords go to `Agent`."""
    (tmp_path / "sessions").mkdir()

    def build(
        *argv: str,
        runner: Runner | None = None,
        credential: Credential | None = None,
        policy: Policy | None = None,
        stall_s: float = 600.0,
        **more: Any,
    ) -> Session:
        subject = Subject(
            item="fix",
            uid=MARK.rpartition(".")[0],
            mark=MARK,
            slot="agent-1",
            agent="shell",
            worktree=tree,
            policy=policy,
        )
        return Session(
            SessionFolder(
                tmp_path.resolve() / "sessions" / "2027-01-01" / MARK, tmp_path.resolve() / "tmp" / "agent-1"
            ),
            subject,
            Agent(adapter="command", argv=argv, **more),
            credential,
            runner=runner or Runner(clock=SystemClock(), containment=Containment()),
            clock=SystemClock(),
            stall_s=stall_s,
            environ={"PATH": os.environ["PATH"], "SECRET": "sesame"},
        )

    return build


def script(code: str) -> tuple[str, str, str, str]:
    return (sys.executable, "-I", "-c", code)


def test_a_prompt_is_run_as_a_shell_script_in_the_worktree(make: Make, tree: Path) -> None:
    session = make("sh", "{prompt_file}")
    result = session.run("echo hello > greeting\npwd\n", timeout_s=60)
    session.close()
    assert result.outcome == Ok()
    assert result.text == f"{tree}\n"
    assert (tree / "greeting").read_text() == "hello\n"


@pytest.mark.parametrize(
    ("by", "argv"), [(PromptBy.STDIN, ("cat",)), (PromptBy.ARGUMENT, ("printf", "%s", "{prompt}"))]
)
def test_a_prompt_comes_by_stdin_or_as_an_argument(make: Make, by: PromptBy, argv: tuple[str, ...]) -> None:
    session = make(*argv, prompt=by)
    assert session.run("Größe\n{model} $HOME\n", timeout_s=60).text == "Größe\n{model} $HOME\n"
    session.close()


def test_a_tool_that_is_given_no_prompt_on_stdin_reads_nothing(make: Make) -> None:
    session = make("cat")
    assert session.run("secret plan", timeout_s=60).text == ""
    session.close()


def test_everything_about_a_run_is_kept_in_files_that_only_we_can_read(make: Make) -> None:
    session = make("sh", "{prompt_file}")
    session.run("echo out; echo err >&2; exit 3", timeout_s=60)
    folder = session.folder
    assert folder.prompt(1).read_text() == "echo out; echo err >&2; exit 3"
    assert folder.stdout(1).read_text() == "out\n"
    assert folder.stderr(1).read_text() == "err\n"
    summary = json.loads(folder.summary.read_text())
    assert (summary["v"], summary["item"], summary["runs"][0]["attempt"], summary["agent"]) == (
        1,
        "fix",
        MARK,
        "shell",
    )
    assert (summary["runs"][0]["outcome"], summary["runs"][0]["exit_code"]) == ("crash", 3)
    for path in (folder.path, folder.home, folder.ask, folder.path.parent):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    session.close()
    assert folder.home.is_dir()
    assert not os.path.lexists(folder.tmp)


def test_heal_rounds_are_further_runs_of_the_same_session(make: Make) -> None:
    code = 'echo "$HARNESS_ROUND $HARNESS_SESSION $0"'
    session = make("sh", "-c", code, "first", resume_argv=("sh", "-c", code, "{session}"))
    first = session.run("a", timeout_s=60).text.split()
    second = session.run("b", timeout_s=60).text.split()
    session.close()
    assert (first[0], first[2]) == ("1", "first")
    assert second == ["2", first[1], first[1]]
    assert session.folder.prompt(2).read_text() == "b"
    assert len(json.loads(session.folder.summary.read_text())["runs"]) == 2


def test_no_variable_of_the_daemon_reaches_the_tool(make: Make) -> None:
    session = make("env")
    result = session.run("", timeout_s=60)
    session.close()
    assert "sesame" not in result.text
    assert f"HOME={session.folder.home}" in result.text
    assert f"HARNESS_ATTEMPT={MARK}" in result.text


def test_temporary_files_are_its_own_and_short_enough_for_sockets(make: Make) -> None:
    session = make("sh", "-c", 'echo "$TMPDIR"; echo x > "$TMPDIR/x"; mkdir "$TMPDIR/y"; chmod 0 "$TMPDIR/y"')
    tmp = Path(session.run("", timeout_s=60).text.strip())
    assert (tmp / "x").is_file()
    assert tmp == session.folder.tmp.resolve()
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(tmp / "a-folder-of-a-tool.sock"))
    session.close()
    assert not tmp.exists()
    session.close()


def test_a_key_that_a_tool_prints_is_blanked_where_it_is_shown(make: Make, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("open-sesame-1\n")
    session = make(
        "sh",
        "-c",
        'echo "my key is $API_KEY"',
        credential=Credential(variable="API_KEY", file=str(tmp_path / "key")),
    )
    result = session.run("", timeout_s=60)
    session.close()
    assert "open-sesame" not in result.text
    assert "open-sesame" not in session.folder.summary.read_text()


def test_a_credential_that_is_missing_is_an_outcome_and_nothing_is_run(make: Make, tree: Path) -> None:
    session = make("touch", "ran", credential=Credential(variable="API_KEY"))
    result = session.run("", timeout_s=60)
    session.close()
    assert isinstance(result.outcome, Auth)
    assert "API_KEY is not set" in result.text
    assert not (tree / "ran").exists()
    assert json.loads(session.folder.summary.read_text())["runs"][0]["outcome"] == "auth"


def test_a_prompt_too_long_for_an_argument_is_an_outcome_that_says_what_to_do(make: Make) -> None:
    session = make("printf", "{prompt}", prompt=PromptBy.ARGUMENT)
    result = session.run("x" * 200_000, timeout_s=60)
    session.close()
    assert isinstance(result.outcome, BadRequest)
    assert "prompt: file" in result.outcome.detail


def test_a_big_prompt_goes_by_file_and_by_stdin(make: Make) -> None:
    session = make("wc", "-c", prompt=PromptBy.STDIN)
    assert session.run("x" * 5_000_000, timeout_s=60).text.strip() == "5000000"
    session.close()


def test_a_prompt_with_half_a_character_is_written_all_the_same(make: Make) -> None:
    session = make("cat", "{prompt_file}")
    assert session.run("a\ud800b", timeout_s=60).text == "a?b"
    session.close()


def test_a_tool_that_is_not_installed_is_named(make: Make) -> None:
    session = make("no-such-tool-anywhere")
    result = session.run("", timeout_s=60)
    session.close()
    assert isinstance(result.outcome, Crash)
    assert result.not_started
    assert "no-such-tool-anywhere is not installed" in result.outcome.detail
    elsewhere = make("./no/such/tool").run("", timeout_s=60)
    assert isinstance(elsewhere.outcome, Crash)
    assert not elsewhere.not_started


def test_a_limit_in_the_output_is_recognised_with_its_end(make: Make) -> None:
    limit = Pattern(match="429", outcome=OutcomeName.RATE_LIMIT, retry_after=r"in (\d+) s")
    session = make(
        "sh",
        "-c",
        "yes padding | head -c 3000000; echo 'HTTP 429, again in 30 s' >&2; exit 1",
        patterns=(limit,),
    )
    before = SystemClock().wall()
    outcome = session.run("", timeout_s=60).outcome
    session.close()
    assert isinstance(outcome, RateLimit)
    assert outcome.resume_at is not None
    assert before + 29 < outcome.resume_at < SystemClock().wall() + 31


def test_a_limit_far_from_the_end_is_not_what_ended_the_run(make: Make) -> None:
    limit = Pattern(match="429", outcome=OutcomeName.RATE_LIMIT)
    session = make("sh", "-c", "echo 429; yes padding | head -c 3000000", patterns=(limit,))
    assert session.run("", timeout_s=60).outcome == Ok()
    session.close()


def test_the_attempts_time_and_the_tools_own_time_both_end_a_run(make: Make) -> None:
    session = make("sleep", "600", timeout_s=0.3)
    assert isinstance(session.run("", timeout_s=600).outcome, TimedOut)
    session.close()
    session = make("sleep", "600")
    assert isinstance(session.run("", timeout_s=0.3).outcome, TimedOut)
    session.close()


def test_a_silent_idle_tool_is_stalled(make: Make) -> None:
    session = make("sleep", "600", stall_s=0.5)
    assert isinstance(session.run("", timeout_s=600).outcome, Stalled)
    session.close()


def test_a_drain_interrupts_the_tool_by_its_own_ladder_and_keeps_what_it_said(make: Make) -> None:
    code = (
        "import signal\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})\n"  # a handler may run too late for a sleep
        "open('ready', 'w').close()\n"
        "signal.sigwait({signal.SIGINT})\n"
        "print('saved')\n"
    )
    session = make(*script(code))
    ready = session._subject.worktree / "ready"
    session._runner = Runner(
        clock=SystemClock(),
        containment=Containment(),
        beat=lambda: "drain" if ready.exists() else None,
        beat_s=0.02,
    )
    result = session.run("", timeout_s=60)
    session.close()
    assert result.outcome == Interrupted(why="drain")
    assert result.text == "saved\n"


def test_nothing_that_a_tool_starts_outlives_its_run(make: Make, tree: Path) -> None:
    session = make("sh", "-c", "setsid sleep 600 & echo $! > pid; exit 0")
    result = session.run("", timeout_s=60)
    session.close()
    assert result.outcome == Ok()
    assert not Path(f"/proc/{(tree / 'pid').read_text().strip()}").exists()


def test_what_is_shown_of_a_tool_is_printable_and_short(make: Make) -> None:
    session = make("sh", "-c", "printf '\\033[2J\\033[31mred\\n'; yes | head -c 100000")
    text = session.run("", timeout_s=60).text
    session.close()
    assert "\x1b" not in text
    assert len(text) <= 8 << 10


@pytest.mark.parametrize(
    ("code", "asked"),
    [
        ('echo "which colour?" > "$HARNESS_INTERRUPT_FILE"', "which colour?"),
        ('ln -s /etc/passwd "$HARNESS_INTERRUPT_FILE"', None),
        ('mkfifo "$HARNESS_INTERRUPT_FILE"', None),
        ('mkdir "$HARNESS_INTERRUPT_FILE"', None),
        (': > "$HARNESS_INTERRUPT_FILE"', None),
        ("true", None),
    ],
)
def test_a_question_is_found_and_nothing_else_is_mistaken_for_one(
    make: Make, code: str, asked: str | None
) -> None:
    session = make("sh", "-c", code)
    assert session.run("", timeout_s=60).question == asked
    session.close()


def test_a_session_that_never_ran_can_be_closed(make: Make) -> None:
    session = make("true")
    session.close()
    assert not session.folder.path.exists()


def test_in_a_sandbox_a_tool_writes_only_its_own_folders_and_cannot_forge_its_logs(
    make: Make, tree: Path
) -> None:
    containment = Containment.probe(Sandbox.AUTO)
    if containment.sandbox is Sandbox.NONE:
        pytest.skip("no sandbox works on this machine: neither Landlock nor bubblewrap")
    code = """
cat "$HARNESS_PROMPT_FILE" > copy && echo x > "$HOME/x" && echo x > "$TMPDIR/x" && echo "?" > "$HARNESS_INTERRUPT_FILE" || exit 9
d=$(dirname "$HARNESS_PROMPT_FILE")
(echo forged > "$d/summary.json") 2>/dev/null && exit 8
(echo forged > "$d/gate.tests.1.log") 2>/dev/null && exit 7
(echo forged > "$d/prompt.1.md") 2>/dev/null && exit 6
exit 0
"""
    runner = Runner(clock=SystemClock(), containment=containment)
    session = make("sh", "-c", code, runner=runner, policy=Policy(write=(tree,)))
    result = session.run("the task", timeout_s=60)
    session.close()
    assert result.outcome == Ok(), result
    assert (tree / "copy").read_text() == "the task"
    assert result.question == "?"


# what sessions and gates share


def test_the_tail_of_a_file_begins_with_a_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"first\nsecond\nthird\n")
    assert list(lines(path, None)) == [b"first", b"second", b"third"]
    assert list(lines(path, 100)) == [b"first", b"second", b"third"]
    assert list(lines(path, 10)) == [b"third"]
    assert list(lines(path, 13)) == [b"second", b"third"]
    assert list(lines(tmp_path / "none", 10)) == []
    path.write_bytes(b"x" * 50)
    assert list(lines(path, 10)) == [b"x" * 10]
    assert tail(path, 10) == "x" * 10
    assert tail(tmp_path / "none", 10) == ""


def test_a_link_for_temporary_files_that_was_bent_is_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "work").write_text("x")
    link = tmp_path / ("long" * 20)
    link.symlink_to(precious)
    remove(Runner(clock=SystemClock(), containment=Containment()), *tmp_folders(link))
    assert (precious / "work").read_text() == "x"
    assert not os.path.lexists(link)


def test_a_folder_for_temporary_files_that_the_system_has_cleaned_away_is_made_again(tmp_path: Path) -> None:
    link = tmp_path / ("long" * 20)
    first = make_tmp(link)
    first.rmdir()
    second = make_tmp(link)
    assert second.is_dir()
    assert second != first
    remove(Runner(clock=SystemClock(), containment=Containment()), *tmp_folders(link))
    assert not second.exists()


@pytest.mark.parametrize("left", ["a file", "a dangling link", "a link"])
def test_whatever_an_agent_puts_in_the_place_of_its_temporary_files_does_not_stop_the_next_round(
    make: Make, tmp_path: Path, left: str
) -> None:
    precious = tmp_path / "precious"
    (precious / "gate").mkdir(parents=True)
    put = {"a file": "echo x > $TMPDIR", "a dangling link": "ln -s /nowhere $TMPDIR"}.get(
        left, f"ln -s {precious} $TMPDIR"
    )
    session = make("sh", "-c", f'echo "$TMPDIR"; rm -rf $TMPDIR; {put}')
    for _ in range(2):
        tmp = Path(session.run("", timeout_s=60).text.strip())
        assert tmp == session.folder.tmp
    session.close()
    assert (precious / "gate").is_dir()
    assert not os.path.lexists(session.folder.scratch)


class TalkativeAdapter(CommandAdapter):
    """Reads a little language, and resumes by what it was told."""

    tail_bytes = None
    resumes = True
    used: Usage | None = None

    def feed(self, stream: Stream, line: bytes) -> list[AgentEvent]:
        match line.decode().split(maxsplit=1):
            case ["session", name]:
                return [Started(session=name), Activity(kind="init")]
            case ["cost", usd]:
                self.used = Usage(cost_usd=float(usd), turns=2)
                return [self.used]
            case ["final", text]:
                return [Final(text=text)]
            case ["lost"]:
                return [LostSession()]
            case _:
                return []

    def usage(self) -> Usage | None:
        return self.used


def test_what_an_adapter_reads_out_of_the_output_ends_up_in_the_result(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.session.adapter_for", TalkativeAdapter)
    session = make(
        "sh", "-c", 'echo "$HARNESS_SESSION" >&2; printf "session s-1\\ncost 0.5\\nfinal all done\\n"'
    )
    result = session.run("", timeout_s=60)
    assert result.text == "all done"
    assert result.usage == Spent(cost_usd=0.5, turns=2)
    session.run("", timeout_s=60)
    session.close()
    assert session.folder.stderr(2).read_text() == "s-1\n"
    summary = json.loads(session.folder.summary.read_text())
    assert summary["conversation"] == "s-1"
    assert summary["runs"][0]["usage"] == {"cost_usd": 0.5, "turns": 2, "estimated": False}
    assert [run["resumed"] for run in summary["runs"]] == [False, True]


def test_a_run_whose_worker_was_killed_is_read_again_and_gone_on_with(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.session.adapter_for", TalkativeAdapter)
    said = 'printf "session s-1\\ncost 0.5\\nand then"'
    killed = make("sh", "-c", said)
    killed.run("", timeout_s=60)
    record = killed.record
    (run,) = record.runs
    begun = RunRecord(round=1, attempt=run.attempt, slot=run.slot, started_at=run.started_at)
    sessionrecord.write(killed.folder.summary, replace(record, conversation="", runs=(begun,)))
    killed.folder.events(1).unlink()
    later = make("sh", "-c", "echo again")
    before = later.goes_on
    later.settle()
    assert (before, later.goes_on) == (False, True)
    assert later.record.conversation == "s-1"
    (settled,) = later.record.runs
    assert (settled.outcome, settled.signal) == ("crash", 9)
    assert settled.usage == Spent(cost_usd=0.5, turns=2)
    assert killed.folder.events(1).exists()
    later.run("", timeout_s=60)
    later.close()
    assert [run.round for run in later.record.runs] == [1, 2]
    assert later.record.runs[1].resumed


def test_a_conversation_that_the_tool_has_lost_begins_anew_under_another_id(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.session.adapter_for", TalkativeAdapter)
    session = make("sh", "-c", 'test "$HARNESS_ROUND" = 2 && echo lost; echo session "s-$HARNESS_ROUND"')
    session.run("", timeout_s=60)
    ours = session.record.session
    result = session.run("", timeout_s=60)
    assert result.lost
    assert not session.goes_on
    assert session.record.session != ours
    session.run("", timeout_s=60)
    session.close()
    assert [run.resumed for run in session.record.runs] == [False, True, False]
    assert session.record.conversation == "s-3"


def test_a_session_of_another_agent_in_the_same_folder_is_not_gone_on_with(make: Make) -> None:
    session = make("true")
    session.run("", timeout_s=60)
    session.close()
    sessionrecord.write(session.folder.summary, replace(session.record, agent="other"))
    assert make("true").record.runs == ()


def test_a_tool_that_talks_faster_than_it_can_be_heard_is_ended_when_it_has_written_too_much(
    make: Make,
) -> None:
    """Its worker beats meanwhile."""
    talks = "import sys, time\nwhile True:\n    sys.stdout.write('{}\\n' * 50_000)\n    time.sleep(0.02)\n"
    beats: list[float] = []

    def beat() -> None:
        beats.append(time.monotonic())

    runner = Runner(clock=SystemClock(), containment=Containment(), beat=beat, beat_s=0.2)
    session = make(sys.executable, "-c", talks, output="jsonl", max_output_mb=8, runner=runner)
    result = session.run("", timeout_s=60)
    session.close()
    assert result.outcome == Crash(detail="wrote more than 8 MiB (agent.max_output_mb)")
    assert len(beats) > 3
