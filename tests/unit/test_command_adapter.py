"""The `command` adapter: how a tool is started and how its end is judged. No process is started here."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from harness.agents.base import CannotInvoke, Stream, Task
from harness.agents.command import CommandAdapter
from harness.agents.environment import passed
from harness.agents.outcomes import (
    AgentOutcome,
    Auth,
    BadRequest,
    Crash,
    Interrupted,
    MaxTurns,
    Ok,
    RateLimit,
    Stalled,
    TimedOut,
)
from harness.config import Agent, Credential, OutcomeName, Pattern, PromptBy
from harness.runner import Ended, EndReason

NOW = 1_800_000_000.0
LIMIT = Pattern(
    match=r"(?i)rate.?limit|\b429\b", outcome=OutcomeName.RATE_LIMIT, retry_after=r"retry.after[: ]+(\d+)"
)
AUTH = Pattern(match="invalid api key", outcome=OutcomeName.AUTH)


def agent(*argv: str, **more: Any) -> Agent:
    return Agent(adapter="command", argv=argv or ("tool",), **more)


def task(tmp_path: Path, *, number: int = 1, prompt: str = "do it") -> Task:
    return Task(
        item="fix",
        mark="fix-x7.2",
        slot="agent-1",
        agent="shell",
        session="5e55",
        round=number,
        resume="5e55" if number > 1 else None,
        prompt=prompt,
        prompt_file=tmp_path / "prompt.1.md",
        worktree=tmp_path / "tree",
        folder=tmp_path,
        home=tmp_path / "home",
        tmp=tmp_path / "tmp",
        interrupt_file=tmp_path / "ask" / "interrupt.json",
        findings_file=tmp_path / "ask" / "findings.md",
    )


def env_of(tmp_path: Path, made: Agent, environ: Mapping[str, str]) -> Mapping[str, str]:
    return CommandAdapter(made).command(task(tmp_path), environ).env


def judge(made: Agent, ended: Ended, *output: str) -> AgentOutcome:
    adapter = CommandAdapter(made)
    for line in output:
        adapter.feed(Stream.STDOUT, line.encode())
    return adapter.finish(ended, NOW)


def exited(code: int | None = 0, **more: Any) -> Ended:
    return Ended(reason=EndReason.EXITED, exit_code=code, duration_s=1.0, **more)


# argv


def test_placeholders_are_filled_in_once_and_in_one_pass(tmp_path: Path) -> None:
    made = agent(
        "t",
        "{prompt}",
        "--x={session}:{model}",
        "{worktree}",
        "{run_id}",
        "{run_dir}",
        "{prompt_file}",
        model="m",
    )
    argv = CommandAdapter(made).command(task(tmp_path, prompt="say {model} {{x}}"), {}).argv
    assert argv == (
        "t",
        "say {model} {{x}}",
        "--x=5e55:m",
        str(tmp_path / "tree"),
        "fix-x7.2",
        str(tmp_path),
        str(tmp_path / "prompt.1.md"),
    )


def test_doubled_braces_are_a_literal_and_other_braces_stay(tmp_path: Path) -> None:
    made = agent("{{model}}", "${model}", '{"a": {"b": 1}}', "{A}")
    assert CommandAdapter(made).command(task(tmp_path), {}).argv == (
        "{model}",
        "${model}",
        '{"a": {"b": 1}}',
        "{A}",
    )


def test_a_session_that_goes_on_uses_the_other_command_line(tmp_path: Path) -> None:
    made = agent("start", resume_argv=("resume", "{session}"))
    assert CommandAdapter(made).command(task(tmp_path, number=1), {}).argv == ("start",)
    assert CommandAdapter(made).command(task(tmp_path, number=2), {}).argv == ("resume", "5e55")
    assert CommandAdapter(agent("start")).command(task(tmp_path, number=2), {}).argv == ("start",)


@pytest.mark.parametrize(
    ("by", "stdin"), [(PromptBy.STDIN, True), (PromptBy.FILE, False), (PromptBy.ARGUMENT, False)]
)
def test_only_prompt_by_stdin_gets_something_to_read(tmp_path: Path, by: PromptBy, stdin: bool) -> None:
    invocation = CommandAdapter(agent(prompt=by)).command(task(tmp_path), {})
    assert invocation.stdin == (tmp_path / "prompt.1.md" if stdin else None)


@pytest.mark.parametrize(("prompt", "said"), [("x" * (128 << 10), "131073 bytes"), ("a\0b", "NUL")])
def test_a_prompt_that_cannot_be_an_argument_is_refused_with_a_way_out(
    tmp_path: Path, prompt: str, said: str
) -> None:
    with pytest.raises(CannotInvoke, match="prompt: file") as caught:
        CommandAdapter(agent("t", "{prompt}", prompt=PromptBy.ARGUMENT)).command(
            task(tmp_path, prompt=prompt), {}
        )
    assert isinstance(caught.value.outcome, BadRequest)
    assert said in caught.value.outcome.detail


def test_an_argument_just_below_the_limit_is_accepted(tmp_path: Path) -> None:
    made = agent("t", "{prompt}", prompt=PromptBy.ARGUMENT)
    CommandAdapter(made).command(task(tmp_path, prompt="x" * ((128 << 10) - 1)), {})


def test_arguments_and_environment_together_have_a_limit_too(tmp_path: Path) -> None:
    environ = {f"BIG_{i}": "x" * 100_000 for i in range(os.sysconf("SC_ARG_MAX") // 100_000 + 1)}
    with pytest.raises(CannotInvoke, match="together"):
        CommandAdapter(agent(env_pass=("BIG_*",))).command(task(tmp_path), environ)


# environment


def test_nothing_is_inherited_but_what_is_allowed(tmp_path: Path) -> None:
    environ = {
        "PATH": "/bin",
        "LC_TIME": "C",
        "TZ": "UTC",
        "SECRET": "x",
        "ANTHROPIC_API_KEY": "x",
        "SSH_AUTH_SOCK": "x",
    }
    env = env_of(tmp_path, agent(), environ)
    assert (env["PATH"], env["LC_TIME"], env["TZ"], env["TERM"]) == ("/bin", "C", "UTC", "dumb")
    assert not {"SECRET", "ANTHROPIC_API_KEY", "SSH_AUTH_SOCK"} & set(env)


def test_home_and_tmpdir_are_its_own(tmp_path: Path) -> None:
    env = env_of(tmp_path, agent(), {"HOME": "/root", "TMPDIR": "/x"})
    assert (env["HOME"], env["TMPDIR"]) == (str(tmp_path / "home"), str(tmp_path / "tmp"))


def test_home_can_be_handed_on_or_set(tmp_path: Path) -> None:
    assert env_of(tmp_path, agent(env_pass=("HOME",)), {"HOME": "/root"})["HOME"] == "/root"
    assert env_of(tmp_path, agent(env={"HOME": "{run_dir}/h"}), {})["HOME"] == f"{tmp_path}/h"


def test_it_finds_its_item_in_the_environment_and_git_asks_nobody(tmp_path: Path) -> None:
    env = env_of(tmp_path, agent(env={"HARNESS_ITEM": "forged"}), {})
    assert env["HARNESS_ITEM"] == "fix"
    assert env["HARNESS_ATTEMPT"] == "fix-x7.2"
    assert env["HARNESS_SLOT"] == "agent-1"
    assert env["HARNESS_WORKTREE"] == str(tmp_path / "tree")
    assert env["HARNESS_PROMPT_FILE"] == str(tmp_path / "prompt.1.md")
    assert env["HARNESS_INTERRUPT_FILE"] == str(tmp_path / "ask" / "interrupt.json")
    assert env["GIT_TERMINAL_PROMPT"] == "0"
    assert env["GIT_AUTHOR_NAME"] == env["GIT_COMMITTER_NAME"] == "shell"


def test_values_may_hold_placeholders_and_references(tmp_path: Path) -> None:
    env = env_of(tmp_path, agent(env={"A": "{run_dir}/x", "B": "${TOKEN}!"}), {"TOKEN": "t"})
    assert (env["A"], env["B"]) == (f"{tmp_path}/x", "t!")


def test_an_unset_reference_is_a_matter_for_a_person(tmp_path: Path) -> None:
    with pytest.raises(CannotInvoke, match=r"agents\.shell\.env\.B: the variable TOKEN is not set") as caught:
        env_of(tmp_path, agent(env={"B": "${TOKEN}"}), {})
    assert isinstance(caught.value.outcome, Auth)


def test_marks_of_another_agent_are_never_handed_on() -> None:
    environ = {
        "CLAUDECODE": "1",
        "AI_AGENT": "x",
        "CLAUDE_CODE_ENTRYPOINT": "cli",
        "CLAUDE_CODE_OAUTH_TOKEN": "t",
        "CLAUDE_CONFIG_DIR": "/c",
        "HARNESS_ROOT": "/r",
    }
    assert passed(environ, ["*LAUDE", "CLAUDE*", "CLAUDECODE", "AI_AGENT", "HARNESS_*"]) == {
        "CLAUDE_CONFIG_DIR": "/c"
    }
    assert passed(environ, ["CLAUDE_CODE_OAUTH_TOKEN"]) == {"CLAUDE_CODE_OAUTH_TOKEN": "t"}


def test_an_invocation_does_not_show_its_environment(tmp_path: Path) -> None:
    invocation = CommandAdapter(agent(env={"A": "sesame"})).command(task(tmp_path), {})
    assert "sesame" not in repr(invocation)


# credentials


def credential(tmp_path: Path, content: bytes | None) -> Credential:
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
    return Credential(variable="API_KEY", file=str(path))


def test_a_credential_is_read_from_its_file_for_this_process(tmp_path: Path) -> None:
    adapter = CommandAdapter(agent(), credential(tmp_path, b"sesame\n"))
    assert adapter.command(task(tmp_path), {}).env["API_KEY"] == "sesame"


def test_a_credential_without_a_file_comes_from_the_daemon(tmp_path: Path) -> None:
    adapter = CommandAdapter(agent(), Credential(variable="API_KEY"))
    assert adapter.command(task(tmp_path), {"API_KEY": "sesame"}).env["API_KEY"] == "sesame"


def test_the_folder_of_systemd_credentials_can_be_named(tmp_path: Path) -> None:
    credential(tmp_path, b"sesame")
    adapter = CommandAdapter(agent(), Credential(variable="API_KEY", file="${CREDENTIALS_DIRECTORY}/key"))
    env = adapter.command(task(tmp_path), {"CREDENTIALS_DIRECTORY": str(tmp_path)}).env
    assert env["API_KEY"] == "sesame"


@pytest.mark.parametrize("content", [None, b"", b" \n", b"\xff", b"a\0b", b"x" * (65 << 10)])
def test_a_credential_that_cannot_be_used_is_named_but_never_shown(
    tmp_path: Path, content: bytes | None
) -> None:
    adapter = CommandAdapter(agent(), credential(tmp_path, content))
    with pytest.raises(CannotInvoke, match="key") as caught:
        adapter.command(task(tmp_path), {})
    assert isinstance(caught.value.outcome, Auth)


def test_a_credential_that_is_nowhere_is_named(tmp_path: Path) -> None:
    with pytest.raises(CannotInvoke, match="API_KEY is not set"):
        CommandAdapter(agent(), Credential(variable="API_KEY")).command(task(tmp_path), {})


# how it ended


def test_exit_codes_without_a_map() -> None:
    assert judge(agent(), exited(0)) == Ok()
    assert judge(agent(), exited(3)) == Crash(exit_code=3)
    assert judge(agent(), exited(None, signal=signal.SIGSEGV)) == Crash(signal=signal.SIGSEGV)


def test_exit_codes_with_a_map() -> None:
    made = agent(
        exit_codes={"2": OutcomeName.MAX_TURNS, "75": OutcomeName.RATE_LIMIT, "137": OutcomeName.BUDGET}
    )
    assert judge(made, exited(0)) == Ok()
    assert judge(made, exited(2)) == MaxTurns(detail="exit 2")
    assert judge(made, exited(75)) == RateLimit(detail="exit 75")
    assert judge(made, exited(None, signal=9)).__class__.__name__ == "Budget"
    assert judge(made, exited(4)) == Crash(exit_code=4)


def test_a_star_stands_for_every_other_failure_and_never_for_0() -> None:
    made = agent(exit_codes={"*": OutcomeName.BAD_REQUEST})
    assert judge(made, exited(9)) == BadRequest(detail="exit 9")
    assert judge(made, exited(0)) == Ok()
    assert judge(agent(exit_codes={"0": OutcomeName.EMPTY}), exited(0)).__class__.__name__ == "Empty"


def test_patterns_come_before_exit_codes_and_the_first_pattern_wins() -> None:
    made = agent(patterns=(AUTH, LIMIT), exit_codes={"1": OutcomeName.CRASH})
    assert judge(made, exited(1), "error 429", "invalid api key") == Auth(detail="invalid api key")
    assert judge(made, exited(0), "error 429") == RateLimit(detail="error 429")
    assert judge(made, exited(0), "all is well") == Ok()


def test_a_reset_is_taken_from_the_line_or_from_the_last_one_that_says_so() -> None:
    made = agent(patterns=(LIMIT,))
    assert judge(made, exited(1), "429, retry after 30", "retry after 99") == RateLimit(
        resume_at=NOW + 30, detail="429, retry after 30"
    )
    assert judge(made, exited(1), "retry after 5", "Retry.", "retry after 7", "rate limit") == RateLimit(
        resume_at=NOW + 7, detail="rate limit"
    )


def test_a_reset_that_is_no_number_is_as_if_it_had_not_been_said() -> None:
    pattern = Pattern(match="429", outcome=OutcomeName.RATE_LIMIT, retry_after=r"after (\w+)|(x)")
    assert judge(agent(patterns=(pattern,)), exited(1), "429 after lunch") == RateLimit(
        detail="429 after lunch"
    )


def test_standard_error_counts_as_output() -> None:
    adapter = CommandAdapter(agent(patterns=(LIMIT,)))
    adapter.feed(Stream.STDERR, b"HTTP 429 \xff")
    assert isinstance(adapter.finish(exited(1), NOW), RateLimit)


def test_an_endless_line_is_searched_only_at_its_beginning() -> None:
    assert judge(agent(patterns=(LIMIT,)), exited(0), "x" * 10_000_000 + " 429") == Ok()


def test_what_we_did_to_it_comes_before_everything() -> None:
    made = agent(patterns=(LIMIT,), exit_codes={"*": OutcomeName.OK})
    stopped = Ended(reason=EndReason.STOPPED, exit_code=130, duration_s=1.0, stop_reason="drain")
    assert judge(made, stopped, "429") == Interrupted(why="drain")
    assert judge(made, Ended(reason=EndReason.TIMED_OUT, duration_s=5.04), "429") == TimedOut(after_s=5.0)
    assert isinstance(judge(made, Ended(reason=EndReason.TOO_MUCH_OUTPUT), "429"), Crash)
    not_started = judge(made, Ended(reason=EndReason.NOT_STARTED, error="no such file"))
    assert not_started == Crash(detail="could not be started: no such file")


def test_a_tool_that_goes_silent_after_a_limit_waits_for_it() -> None:
    stalled = Ended(reason=EndReason.STALLED, duration_s=900.0)
    assert isinstance(judge(agent(patterns=(LIMIT,)), stalled, "429"), RateLimit)
    assert isinstance(judge(agent(patterns=(LIMIT,)), stalled, "thinking"), Stalled)
