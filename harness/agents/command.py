"""The `command` adapter: any program, by an argv template; its end is judged by patterns in its output and exit codes.

Order of judgement: what we did to it (stopped, timed out), then `patterns`, then `exit_codes`, then 0 = ok. A stall is
judged by patterns too: a tool that went silent after "429" waits for its limit.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import assert_never

from harness.agents.base import AgentEvent, CannotInvoke, Invocation, Stream, Task
from harness.agents.environment import passed, plain
from harness.agents.outcomes import (
    AgentOutcome,
    Auth,
    BadRequest,
    Crash,
    Interrupted,
    Stalled,
    TimedOut,
    named,
)
from harness.config import PLACEHOLDER, Agent, Credential, OutcomeName, Pattern, PromptBy, expand
from harness.errors import ConfigError
from harness.runner import Ended, EndReason

TAIL_BYTES = 256 << 10
"""Of each stream, searched by patterns: what ended a run stands at its end."""
LINE_CHARS = 4096
"""Of each line, searched by patterns: bounds what a costly pattern can cost."""
MAX_ARGUMENT_BYTES = 128 << 10
"""MAX_ARG_STRLEN of Linux, the closing NUL included: execve(2), "Limits on size of arguments and environment"."""
MAX_SECRET_BYTES = 64 << 10
_LITERAL = re.compile(r"\{\{([a-z][a-z_]*)\}\}")


class CommandAdapter:
    """One run of a configured command."""

    def __init__(self, agent: Agent, credential: Credential | None = None) -> None:
        self._agent = agent
        self._credential = credential
        self._lines: list[str] = []

    @property
    def tail_bytes(self) -> int:
        return TAIL_BYTES

    def command(self, task: Task, environ: Mapping[str, str]) -> Invocation:
        agent = self._agent
        template = agent.resume_argv if task.round > 1 and agent.resume_argv else agent.argv
        words = self._words(task)
        env = self._environment(task, environ, words)
        argv = tuple(_fill(word, words) for word in template)
        _refuse_too_long(argv, env, task)
        return Invocation(
            argv=argv,
            env=env,
            stdin=task.prompt_file if agent.prompt is PromptBy.STDIN else None,
            stop=agent.stop,
            timeout_s=agent.timeout_s,
            stall_s=agent.stall_s,
            max_output_bytes=agent.max_output_mb << 20,
        )

    def feed(self, stream: Stream, line: bytes) -> list[AgentEvent]:
        if self._agent.patterns:
            self._lines.append(line[: 4 * LINE_CHARS].decode("utf-8", "replace")[:LINE_CHARS])
        return []

    def finish(self, ended: Ended, now: float) -> AgentOutcome:
        match ended.reason:
            case EndReason.STOPPED:
                return Interrupted(why=ended.stop_reason or "")
            case EndReason.TIMED_OUT:
                return TimedOut(after_s=round(ended.duration_s, 1))
            case EndReason.TOO_MUCH_OUTPUT:
                return Crash(detail=f"wrote more than {self._agent.max_output_mb} MiB (agent.max_output_mb)")
            case EndReason.NOT_STARTED:
                return Crash(detail=f"could not be started: {ended.error or 'unknown reason'}")
            case EndReason.STALLED:
                detail = f"no output and no CPU time, stopped after {ended.duration_s:.0f} s"
                return self._by_pattern(now) or Stalled(detail=detail)
            case EndReason.EXITED:
                return self._by_pattern(now) or self._by_code(ended)
            case _:
                assert_never(ended.reason)

    def _by_pattern(self, now: float) -> AgentOutcome | None:
        for pattern in self._agent.patterns:
            search = re.compile(pattern.match).search
            # From the end: the last word on a limit is the one that holds.
            for line in reversed(self._lines):
                if search(line):
                    return named(
                        pattern.outcome, detail=line.strip()[:500], until=self._until(pattern, line, now)
                    )
        return None

    def _until(self, pattern: Pattern, line: str, now: float) -> float | None:
        """When the limit ends: from the matching line, else from the last line that says so."""
        if pattern.retry_after is None:
            return None
        search = re.compile(pattern.retry_after).search
        for candidate in (line, *reversed(self._lines)):
            found = search(candidate)
            if found:
                try:
                    seconds = float(found[1])
                except (TypeError, ValueError):
                    seconds = math.nan
                if math.isnan(seconds):
                    return None  # the group holds no number: as if the tool had not said
                return now + min(max(seconds, 0.0), 366 * 86_400.0)
        return None

    def _by_code(self, ended: Ended) -> AgentOutcome:
        code, number = ended.exit_code, ended.signal
        listed = self._agent.exit_codes
        key = str(128 + number if number else code)
        name = listed.get(key, OutcomeName.OK if key == "0" else listed.get("*", OutcomeName.CRASH))
        if name is OutcomeName.CRASH:
            return Crash(exit_code=code, signal=number)
        return named(name, detail=f"signal {number}" if number else f"exit {code}")

    def _words(self, task: Task) -> dict[str, str]:
        return {
            "prompt": task.prompt,
            "prompt_file": str(task.prompt_file),
            "worktree": str(task.worktree),
            "session": task.session,
            "model": self._agent.model,
            "run_id": task.mark,
            "run_dir": str(task.folder),
        }

    def _environment(
        self, task: Task, environ: Mapping[str, str], words: Mapping[str, str]
    ) -> dict[str, str]:
        env = plain(environ, home=task.home, tmp=task.tmp, name=task.agent, slot=task.slot)
        env |= passed(environ, self._agent.env_pass)
        for name, value in self._agent.env.items():
            try:
                env[name] = expand(_fill(value, words), environ, where=f"agents.{task.agent}.env.{name}")
            except ConfigError as e:
                raise CannotInvoke(e.what, Auth(detail=e.what), where=e.where, remedy=e.remedy) from None
        if self._credential is not None:
            env[self._credential.variable] = _secret(self._credential, environ)
        return env | {
            "HARNESS_ITEM": task.item,
            "HARNESS_ATTEMPT": task.mark,
            "HARNESS_SLOT": task.slot,
            "HARNESS_WORKTREE": str(task.worktree),
            "HARNESS_PROMPT_FILE": str(task.prompt_file),
            "HARNESS_INTERRUPT_FILE": str(task.interrupt_file),
            "HARNESS_SESSION": task.session,
            "HARNESS_ROUND": str(task.round),
        }


def _fill(template: str, words: Mapping[str, str]) -> str:
    """Placeholders replaced in one pass: what a prompt says is never a template."""
    out: list[str] = []
    end = 0
    for found in PLACEHOLDER.finditer(template):
        out += (_LITERAL.sub(r"{\1}", template[end : found.start()]), words[found[1]])
        end = found.end()
    return "".join(out) + _LITERAL.sub(r"{\1}", template[end:])


def _refuse_too_long(argv: tuple[str, ...], env: Mapping[str, str], task: Task) -> None:
    """Linux limits one argument and all of them with the environment; a tool must not die of E2BIG with no word."""
    where, remedy = f"agents.{task.agent}.argv", "set prompt: file (or stdin) for this agent"
    sizes = [len(os.fsencode(word)) + 1 for word in argv]
    if any("\0" in word for word in argv):
        what = "the prompt holds a NUL character and cannot be an argument"
    elif max(sizes) > MAX_ARGUMENT_BYTES:
        what = f"an argument of {max(sizes)} bytes is over the system's limit of {MAX_ARGUMENT_BYTES}"
    elif sum(sizes) + _size_of(env) > os.sysconf("SC_ARG_MAX") - 4096:
        what = "the arguments and the environment together are over the system's limit"
    else:
        return
    raise CannotInvoke(what, BadRequest(detail=f"{what}; {remedy}"), where=where, remedy=remedy)


def _size_of(env: Mapping[str, str]) -> int:
    """Bytes on the new stack: each string with `=` and NUL, and its pointer."""
    return sum(len(os.fsencode(name)) + len(os.fsencode(value)) + 10 for name, value in env.items())


def _secret(credential: Credential, environ: Mapping[str, str]) -> str:
    """The value, from its file or the daemon's environment. Its text never shows in an error."""
    if credential.file is None:
        if environ.get(credential.variable):
            return environ[credential.variable]
        what = f"{credential.variable} is not set in the daemon's environment"
        remedy = "set it there, or name a file in `credentials`"
        raise CannotInvoke(what, Auth(detail=what), remedy=remedy)
    try:
        path = Path(expand(credential.file, environ, where="credentials"))
        with path.open("rb") as file:
            raw = file.read(MAX_SECRET_BYTES + 1)
        value = raw.decode().strip()
    except ConfigError as e:
        raise CannotInvoke(e.what, Auth(detail=e.what), where=e.where, remedy=e.remedy) from None
    except OSError as e:
        what = f"the credential's file cannot be read: {e.strerror}"
        raise CannotInvoke(
            what, Auth(detail=what), where=credential.file, remedy="see its permissions"
        ) from None
    except UnicodeDecodeError:
        raw, value = b"", ""
    if not value or len(raw) > MAX_SECRET_BYTES or "\0" in value:
        what = "the credential's file is empty or holds no plain text"
        raise CannotInvoke(what, Auth(detail=what), where=credential.file, remedy="put the key alone into it")
    return value
