"""One answer of the API as a value, and what each of the four dialects must be able to say."""

from __future__ import annotations

import json
import math
import re
import shlex
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from tests.agents.dialogue import Entry
from tests.agents.scripts import Call, Fail, Say, Shell, Stop, Tokens, Tool, Trouble, Write

Json = dict[str, Any]

PATH = "{path}"
CONTENT = "{content}"
COMMAND = "{command}"
SHELLS: Mapping[str, Json] = {
    "Bash": {"command": COMMAND, "description": "as the script says"},
    "run_shell_command": {"command": COMMAND, "description": "as the script says", "is_background": False},
    "bash": {"command": COMMAND, "description": "as the script says"},
    "exec_command": {"cmd": COMMAND, "yield_time_ms": 10_000},
    "shell_command": {"command": COMMAND},
    "shell": {"command": ["bash", "-lc", COMMAND]},
}
"""Tools for commands, as the clients call them, and their arguments."""
WRITERS: Mapping[str, Json] = {
    "Write": {"file_path": PATH, "content": CONTENT},
    "write_file": {"file_path": PATH, "content": CONTENT},
    "write": {"filePath": PATH, "content": CONTENT},
    "create_file": {"path": PATH, "content": CONTENT},
}


@dataclass(frozen=True, slots=True)
class Called:
    """A call as the client knows it; `arguments` are JSON, or meant to be broken."""

    name: str
    arguments: str
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:20])

    def parsed(self) -> Json:
        try:
            found: Json = json.loads(self.arguments)
        except ValueError:
            return {}
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    text: str
    calls: tuple[Called, ...]
    tokens: Tokens
    stop: Stop | None
    model: str
    headers: Mapping[str, str] = field(default_factory=dict)
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:20])


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An answer that is an error."""

    status: int
    body: Json
    headers: Mapping[str, str]


class Dialect(Protocol):
    """How one API is spoken. Pure."""

    name: str

    def entries(self, body: Json) -> Iterable[Entry]:
        """The conversation, oldest first."""
        ...

    def tools(self, body: Json) -> Iterable[str]: ...

    def failure(self, fail: Fail, resets_at: float | None, now: float) -> Failure:
        """`resets_at`: of this failure, when there is such a time."""
        ...

    def whole(self, reply: Reply) -> Json:
        """The answer to a request that does not stream."""
        ...

    def opening(self, reply: Reply) -> bytes:
        """The stream up to its first word."""
        ...

    def words(self, reply: Reply, text: str) -> bytes: ...

    def closing(self, reply: Reply) -> bytes:
        """The stream after its last word."""
        ...

    def broken(self, reply: Reply, fail: Fail | None) -> bytes:
        """After the opening: an error inside of the stream; None: something that is not JSON."""
        ...


def spoken(say: Say, offered: Iterable[str], model: str, headers: Mapping[str, str]) -> Reply:
    """The reply with the names of the client's tools."""
    names = frozenset(offered)
    return Reply(
        text=say.text,
        calls=tuple(_called(tool, names) for tool in say.tools),
        tokens=say.tokens,
        stop=say.stop,
        model=model,
        headers=headers,
    )


def _called(tool: Tool, names: frozenset[str]) -> Called:
    shell = next((name for name in SHELLS if name in names), "bash")
    match tool:
        case Call(name, arguments):
            return Called(name or shell, arguments)
        case Shell(command):
            return Called(shell, json.dumps(_filled(SHELLS[shell], {COMMAND: command})))
        case Write(path, content):
            writer = next((name for name in WRITERS if name in names), None)
            if writer:
                return Called(writer, json.dumps(_filled(WRITERS[writer], {PATH: path, CONTENT: content})))
            return _called(Shell(f"printf %s {shlex.quote(content)} > {shlex.quote(path)}"), names)


def _filled(arguments: Any, values: Mapping[str, str]) -> Any:
    match arguments:
        case dict():
            return {key: _filled(value, values) for key, value in arguments.items()}
        case list():
            return [_filled(value, values) for value in arguments]
        case str():
            return values.get(arguments, arguments)
        case _:
            return arguments


def pieces(text: str, size: int) -> Iterator[str]:
    """The text in parts of so many words, with the space behind them."""
    words = re.findall(r"\s*\S+\s*", text)
    for start in range(0, len(words), size):
        yield "".join(words[start : start + size])


def event(data: Json | str, name: str = "") -> bytes:
    """One event of a stream."""
    text = data if isinstance(data, str) else json.dumps(data)
    return (f"event: {name}\n" if name else "").encode() + f"data: {text}\n\n".encode()


@dataclass(frozen=True, slots=True)
class Waiting:
    """When a client may come again, as far as it is told."""

    retry_after_s: int | None
    """As the header has it."""
    resets_at: float | None
    """Seconds since the epoch."""


def waiting(fail: Fail, resets_at: float | None, now: float) -> Waiting:
    """A usage limit says both; a rate limit the one that the script has, and the reset that follows from it."""
    after_s = None if fail.retry_after_s is None else math.ceil(fail.retry_after_s)
    if fail.trouble is Trouble.USAGE_LIMIT and after_s is None and resets_at is not None:
        after_s = max(0, math.ceil(resets_at - now))
    if resets_at is None and after_s is not None:
        resets_at = now + after_s
    return Waiting(after_s, resets_at)


def each(parts: Any, read: Callable[[Json], str | None]) -> Iterator[str]:
    """The texts of a message whose content is a string or a list of parts."""
    if isinstance(parts, str):
        yield parts
        return
    for part in parts or []:
        text = read(part) if isinstance(part, dict) else None
        if text:
            yield text
