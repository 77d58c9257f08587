"""What a request says of its conversation: the same view of all four dialects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

NOTES = (
    "<system-reminder>",
    "<environment_context>",
    "<session_context>",
    "<user_instructions>",
    "<skills_instructions>",
    "<permissions instructions>",
    "# AGENTS.md instructions",
)
"""How texts begin that a client puts before the person's, as if they were the person's."""


@dataclass(frozen=True, slots=True)
class Prompt:
    text: str


@dataclass(frozen=True, slots=True)
class Replied:
    """The model has said something, and asked for tools or not."""

    tools: bool


@dataclass(frozen=True, slots=True)
class Result:
    """Of a tool."""


Entry = Prompt | Replied | Result


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialogue:
    """A conversation as its latest request tells it."""

    prompts: tuple[str, ...]
    """All of them, oldest first."""
    asked: str
    """The prompts that the latest final reply has not answered."""
    turn: int
    """Replies since then."""


def told(entries: Iterable[Entry]) -> Dialogue:
    """A prompt after a final reply begins anew; one after an interrupted reply goes on with what was asked."""
    prompts: list[str] = []
    asked: list[str] = []
    turn = 0
    final = False
    before: Entry | None = None
    for entry in entries:
        match entry:
            case Prompt(text):
                if final:
                    asked, turn, final = [], 0, False
                prompts.append(text)
                asked.append(text)
            case Replied(tools):
                together = isinstance(before, Replied)  # one reply, told in parts
                turn += not together
                final = not tools and (final or not together)
            case Result():
                final = False
        before = entry
    return Dialogue(prompts=tuple(prompts), asked="\n".join(asked), turn=turn)


def prompts(texts: Iterable[str]) -> Iterator[Prompt]:
    """What a person has written, of the texts of one message."""
    for text in texts:
        if text.strip() and not text.lstrip().startswith(NOTES):
            yield Prompt(text.strip())
