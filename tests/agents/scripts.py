"""What the model of a test says: scripts of replies and troubles, and the scenarios that have a name.

A script is read from its beginning for each prompt. A reply is chosen by how many there were since the prompt, as the
request itself shows: a conversation that is resumed, or told from its start again, finds its place. Troubles stand
before the reply that they delay, and are counted for each conversation.

In texts, commands, paths and contents ``{name}`` is the conversation, as part of a file's name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum


class Trouble(StrEnum):
    """An answer of the API that is an error."""

    RATE_LIMIT = "rate_limit"
    USAGE_LIMIT = "usage_limit"  # holds until it is reset, then the model answers
    OVERLOADED = "overloaded"  # 529 where there is one, else 503
    SERVER = "server_error"
    AUTH = "auth"
    FORBIDDEN = "forbidden"
    BILLING = "billing"
    NO_MODEL = "no_model"
    TOO_LONG = "too_long"


class Where(StrEnum):
    """Up to where a stalled answer came."""

    HEADERS = "headers"  # nothing was sent
    START = "start"  # headers, and that a message begins
    TEXT = "text"  # the first words


class How(StrEnum):
    """What is wrong with an answer that began well."""

    CUT = "cut"  # the connection is gone after the first words
    GARBAGE = "garbage"  # what comes is not JSON
    OVERLOADED = "overloaded_in_stream"  # an error instead of the message, behind a 200


class Stop(StrEnum):
    """Why a reply ended, when it is neither done nor waits for tools."""

    REFUSAL = "refusal"
    LENGTH = "length"


@dataclass(frozen=True, slots=True)
class Shell:
    """A call of the client's tool for shell commands."""

    command: str


@dataclass(frozen=True, slots=True)
class Write:
    """A call of the client's tool that writes a whole file; of its shell, where it has none."""

    path: str
    """Relative: no client has been seen to leave its folder for that."""
    content: str


@dataclass(frozen=True, slots=True)
class Call:
    """Any call, as it is: of a tool that does not exist, or with arguments that are not JSON."""

    name: str
    """"": the client's shell."""
    arguments: str


Tool = Shell | Write | Call


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """What one reply uses."""

    fresh: int = 1000
    """Input that was not read from a cache."""
    cached: int = 0
    out: int = 50


@dataclass(frozen=True, slots=True)
class Say:
    """A reply. Without tools it is the last one."""

    text: str = ""
    tools: tuple[Tool, ...] = ()
    tokens: Tokens = field(default_factory=Tokens)
    stop: Stop | None = None
    word_s: float = 0.0
    """The pause after each word."""
    utilization: float | None = None
    """How much of the limit is used, where headers say that: 0 to 1, as a warning."""


@dataclass(frozen=True, slots=True)
class Fail:
    trouble: Trouble
    times: int | None = None
    """None: always; a usage limit until it is reset."""
    retry_after_s: float | None = None
    resets_at: float | None = None
    """Seconds since the epoch. None: what the server was made with, for a usage limit; else nothing is said of it."""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Stall:
    """Nothing more comes for so long; then the reply goes on."""

    where: Where = Where.HEADERS
    times: int | None = None
    seconds: float = 3600.0


@dataclass(frozen=True, slots=True)
class Break:
    how: How = How.CUT
    times: int | None = None


Fault = Fail | Stall | Break
Step = Say | Fault


@dataclass(frozen=True, slots=True)
class Script:
    steps: tuple[Step, ...]
    words: str = ""
    """A prompt with these words asks for a correction."""
    corrections: tuple[tuple[Step, ...], ...] = ()
    """What is said to the first, the second ... of them; the last of these again to all that follow."""
    endless: bool = False
    """Begins again after its last step; otherwise that is followed by `DONE`."""

    def part(self, correction: int) -> tuple[Step, ...]:
        """What is said to a prompt; `correction` counts from 1, 0 is none."""
        if not correction or not self.corrections:
            return self.steps
        return self.corrections[min(correction, len(self.corrections)) - 1]


DONE = Say("Done.")


def place(script: Script, correction: int, turn: int) -> tuple[tuple[Fault, ...], Say]:
    """The reply number `turn` (from 0) since the prompt, and the troubles before it."""
    steps = script.part(correction)
    if script.endless:
        turn %= sum(isinstance(step, Say) for step in steps)
    faults: list[Fault] = []
    for step in steps:
        if not isinstance(step, Say):
            faults.append(step)
        elif turn == 0:
            return tuple(faults), step
        else:
            faults.clear()
            turn -= 1
    return (tuple(faults) if turn == 0 else ()), DONE


def due(faults: Sequence[Fault], used: Counter[int], holds: Callable[[Fail], bool]) -> Fault | None:
    """The trouble whose turn it is, counted in `used`. `holds`: whether a usage limit is not reset yet."""
    for number, fault in enumerate(faults):
        if isinstance(fault, Fail) and fault.trouble is Trouble.USAGE_LIMIT and not holds(fault):
            continue
        if fault.times is None or used[number] < fault.times:
            used[number] += 1
            return fault
    return None


# ---- scripts that are made ---------------------------------------------------------------------------------------------


def commit(message: str) -> Shell:
    """A commit of everything, by an author of its own: nothing of git's needs to be set."""
    return Shell(
        f"git add -A && git -c user.name=model -c user.email=model@example.invalid commit -q -m '{message}'"
    )


def writing(path: str, content: str, *, tokens: Tokens | None = None) -> tuple[Say, ...]:
    """A file, its commit and a last word: three replies."""
    used = tokens or Tokens()
    return (
        Say("I write the file.", (Write(path, content),), used),
        Say("I commit it.", (commit(f"Write {path}"),), used),
        Say(f"Done: {path} is committed.", tokens=used),
    )


def healing(
    words: str, *, rounds: int = 1, path: str = "work.txt", good: str = "good\n", bad: str = "bad\n"
) -> Script:
    """Leaves `bad` in the file, until it was asked `rounds` times with these words; then it is `good`."""
    wrong = [writing(path, f"{bad}{number}\n") for number in range(1, rounds)]
    return Script(writing(path, bad), words, (*wrong, writing(path, good)))


def costly(fresh: int, out: int, *, cached: int = 0) -> Script:
    """An endless series of tools, each reply with so many tokens."""
    tokens = Tokens(fresh=fresh, cached=cached, out=out)
    return Script((Say("Another step.", (Shell("sleep 2; echo step"),), tokens),), endless=True)


def limited(fault: Fault, then: Sequence[Step] = (Say("Here I am again."),)) -> Script:
    """A trouble, and what is said when it is over."""
    return Script((fault, *then))


_WRITE = writing("hello.txt", "hello\n")
_SLEEP = Shell("python3 -c 'import time; time.sleep(120)'")

SCENARIOS: Mapping[str, Script] = {
    "plain": Script((Say("Hello from the model."),)),
    "commit": Script(_WRITE),
    "item": Script(writing("{name}.txt", "{name}\n")),
    "slow": Script((Say("slow " * 60, word_s=0.25),)),
    "longtool": Script((Say("This takes long.", (_SLEEP,)), Say("The tool has ended."))),
    "loop": Script((Say("Another step.", (Shell("echo step"),)),), endless=True),
    "costly": costly(200_000, 20_000),
    "rate2": limited(Fail(Trouble.RATE_LIMIT, 2, retry_after_s=1)),
    "rate2_commit": limited(Fail(Trouble.RATE_LIMIT, 2, retry_after_s=1), _WRITE),
    "rate_none": limited(Fail(Trouble.RATE_LIMIT)),
    "rate_short": limited(Fail(Trouble.RATE_LIMIT, retry_after_s=1)),
    "rate_long": limited(Fail(Trouble.RATE_LIMIT, retry_after_s=3600)),
    "rate_reset": limited(Fail(Trouble.RATE_LIMIT, resets_at=4_000_000_000.0)),
    "rate_amid": Script((*_WRITE[:1], Fail(Trouble.RATE_LIMIT, retry_after_s=1), *_WRITE[1:])),
    "usage_limit": limited(Fail(Trouble.USAGE_LIMIT), _WRITE),
    "near_limit": Script((Say("Close to the limit.", utilization=0.93),)),
    "overloaded": limited(Fail(Trouble.OVERLOADED)),
    "overloaded2": limited(Fail(Trouble.OVERLOADED, 2)),
    "overloaded_in_stream": limited(Break(How.OVERLOADED)),
    "server_error": limited(Fail(Trouble.SERVER)),
    "auth": limited(Fail(Trouble.AUTH)),
    "forbidden": limited(Fail(Trouble.FORBIDDEN)),
    "billing": limited(Fail(Trouble.BILLING)),
    "no_model": limited(Fail(Trouble.NO_MODEL)),
    "too_long": limited(Fail(Trouble.TOO_LONG)),
    "stall_headers": limited(Stall(Where.HEADERS)),
    "stall_start": limited(Stall(Where.START)),
    "stall_text": limited(Stall(Where.TEXT)),
    "stall_once": limited(Stall(Where.HEADERS, 1), _WRITE),
    "cut": limited(Break(How.CUT)),
    "cut_once": limited(Break(How.CUT, 1), _WRITE),
    "garbage": limited(Break(How.GARBAGE)),
    "bad_tool": Script((Say(tools=(Call("", '{"command": "echo hi'),)), Say("That was wrong."))),
    "unknown_tool": Script((Say(tools=(Call("NoSuchTool", "{}"),)), Say("There is no such tool."))),
    "refusal": Script((Say("I can't help with that.", stop=Stop.REFUSAL),)),
    "max_tokens": Script((Say("trunca", stop=Stop.LENGTH),), endless=True),
    "heal": healing("check failed"),
    "heal2": healing("check failed", rounds=2),
}


def named(step: Say, name: str) -> Say:
    """The reply in a conversation of this name."""

    def fill(text: str) -> str:
        return text.replace("{name}", name)

    def call(tool: Tool) -> Tool:
        match tool:
            case Shell(command):
                return Shell(fill(command))
            case Write(path, content):
                return Write(fill(path), fill(content))
            case Call():
                return tool

    return replace(step, text=fill(step.text), tools=tuple(call(tool) for tool in step.tools))
