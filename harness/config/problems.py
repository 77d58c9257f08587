"""What is wrong with a configuration, in words: pydantic's findings and the cross checks, each with a place and a remedy.

Pure: takes raw data, returns problems. Never shows a value below `env` or `credentials`: it may be a secret.
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from harness.config.models import ADAPTERS, BUILTIN_GATES, SETTINGS, WRITTEN, Config, Health, Project, Retry
from harness.config.references import PLACEHOLDER, PLACEHOLDERS
from harness.dataclass import dataclass

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One problem. `at_key`: the key is wrong, not the value."""

    path: Path
    what: str
    remedy: str = ""
    at_key: bool = False

    def __str__(self) -> str:
        return f"{self.what}; {self.remedy}" if self.remedy else self.what


def dotted(path: Path) -> str:
    """("projects", "app", "gates", 0) -> ``projects.app.gates[0]``."""
    out = ""
    for part in path:
        out += f"[{part}]" if isinstance(part, int) else f".{part}" if out else str(part)
    return out


def nearest(word: str, known: Iterable[str]) -> str:
    """A remedy that names the closest known word, or all of them."""
    words = sorted(known)
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known: {', '.join(words)}" if words else ""


def from_pydantic(errors: Iterable[Mapping[str, Any]]) -> Iterator[Finding]:
    """pydantic's error list -> findings in our words."""
    for error in errors:
        path: Path = tuple(error["loc"])
        if "[key]" in path:
            yield Finding(path=path[:-1], what=f"the name {path[-2]!r} {_message(error)}", at_key=True)
        elif error["type"] in ("unexpected_keyword_argument", "extra_forbidden", "dataclass_extra"):
            yield unknown_key(path)
        else:
            yield _in_words(path, error)


def unknown_key(path: Path) -> Finding:
    remedy = nearest(str(path[-1]), keys_at(path[:-1]))
    return Finding(path=path, what=f"unknown key {path[-1]!r}", remedy=remedy, at_key=True)


def _in_words(path: Path, error: Mapping[str, Any]) -> Finding:
    context = error.get("ctx", {})
    shown = "" if _secret(path) else _shown(error.get("input"))
    match error["type"]:
        case "missing":
            remedy = "add `v: 1`" if path == ("v",) else f"add `{path[-1]}:`"
            return Finding(path=path, what="is missing", remedy=remedy)
        case "enum" | "literal_error":
            return Finding(
                path=path, what=f"must be one of {context.get('expected', '')}{shown}".replace("'", "")
            )
        case "string_type":
            return Finding(path=path, what=f"must be text{shown}", remedy="put it in quotes")
        case "int_type" | "int_from_float":
            return Finding(path=path, what=f"must be a whole number{shown}")
        case "float_type" | "finite_number":
            return Finding(path=path, what=f"must be a number{shown}")
        case "bool_type":
            return Finding(path=path, what=f"must be true or false{shown}")
        case "tuple_type" | "list_type":
            return Finding(path=path, what=f"must be a list{shown}", remedy="write [a, b]")
        case "dataclass_type" | "mapping_type" | "dict_type":
            known = ", ".join(sorted(keys_at(path)))
            return Finding(
                path=path, what=f"must be a mapping{shown}", remedy=f"known keys: {known}" if known else ""
            )
        case "too_short":
            return Finding(path=path, what="must not be empty")
        case "greater_than" | "greater_than_equal" | "less_than" | "less_than_equal":
            return Finding(path=path, what=f"{_lower(error['msg'].replace('Input should', 'must'))}{shown}")
        case _:
            tail = shown if isinstance(error.get("input"), str | int | float) else ""
            return Finding(path=path, what=f"{_lower(_message(error))}{tail}")


def _message(error: Mapping[str, Any]) -> str:
    """pydantic's words, or those of a rule of ours."""
    return str(error["ctx"]["error"] if error["type"] == "value_error" else error["msg"])


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _secret(path: Path) -> bool:
    return "env" in path or path[:1] == ("credentials",)


def _shown(value: Any) -> str:
    if value is None:
        return ", not empty"
    if isinstance(value, bool):
        return f", not {str(value).lower()}"
    if isinstance(value, str | int | float):
        text = repr(value)
        return f", not {text if len(text) <= 60 else text[:57] + '...'}"
    return ", not a list" if isinstance(value, list | tuple) else ", not a mapping"


def keys_at(path: Path) -> frozenset[str]:
    """The keys that the value at `path` may have; empty where any key is fine or none is."""
    kind: Any = Config
    for part in path:
        kind = _below(_bare(kind), part)
    kind = _bare(kind)
    if not is_dataclass(kind):
        return frozenset()
    hidden = {"name"} if kind is Project else {"origins"}
    return frozenset(WRITTEN.get(f.name, f.name) for f in fields(kind) if f.name not in hidden)


def _below(kind: Any, part: str | int) -> Any:
    if is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return next((hint for name, hint in hints.items() if WRITTEN.get(name, name) == part), object)
    arguments = typing.get_args(kind)
    return arguments[1 if typing.get_origin(kind) is not tuple else 0] if arguments else object


def _bare(kind: Any) -> Any:
    """Without `| None`."""
    if isinstance(kind, types.UnionType):
        return next(a for a in typing.get_args(kind) if a is not type(None))
    return kind


def unknown_adapters(data: Mapping[str, Any]) -> Iterator[Finding]:
    """Agents whose adapter this version does not have: one finding each, instead of one for every key."""
    for name, agent in mapping(data, "agents").items():
        adapter = agent.get("adapter") if isinstance(agent, Mapping) else None
        if isinstance(adapter, str) and adapter not in ADAPTERS:
            yield Finding(
                path=("agents", name, "adapter"),
                what=f"there is no adapter {adapter!r}",
                remedy=f"this version has: {', '.join(ADAPTERS)}",
            )


def cross_checks(data: Mapping[str, Any]) -> Iterator[Finding]:
    """What only shows when parts are seen together. Works on raw data, so that it reports beside pydantic."""
    yield from _numbers(data)
    agents, credentials = mapping(data, "agents"), mapping(data, "credentials")
    for name, agent in agents.items():
        if isinstance(agent, Mapping):
            yield from _agent(("agents", name), agent, credentials)
    for name, project in mapping(data, "projects").items():
        if isinstance(project, Mapping):
            yield from _agents_of(("projects", name), project, agents)
            yield from _gates_of(("projects", name), project)


def _numbers(data: Mapping[str, Any]) -> Iterator[Finding]:
    health, retry = mapping(data, "health"), mapping(data, "retry")
    if _less(health.get("hang_s", Health().hang_s), health.get("beat_s", Health().beat_s), factor=2):
        yield Finding(path=("health", "hang_s"), what="must be at least twice health.beat_s")
    if _less(
        retry.get("max_delay_s", Retry().max_delay_s), retry.get("first_delay_s", Retry().first_delay_s)
    ):
        yield Finding(path=("retry", "max_delay_s"), what="must not be less than retry.first_delay_s")


def _less(a: object, b: object, factor: float = 1) -> bool:
    return isinstance(a, int | float) and isinstance(b, int | float) and a < factor * b


def _agent(path: Path, agent: Mapping[str, Any], credentials: Mapping[str, Any]) -> Iterator[Finding]:
    credential = agent.get("credential")
    if isinstance(credential, str) and credential not in credentials:
        remedy = nearest(credential, credentials) or "add it below `credentials`"
        yield Finding(
            path=(*path, "credential"), what=f"there is no credential {credential!r}", remedy=remedy
        )
    yield from _settings(path, agent)
    for code in mapping(agent, "exit_codes"):
        if code != "*" and not (code.isascii() and code.isdigit() and int(code) <= 255):
            yield Finding(
                path=(*path, "exit_codes", code), what=f"{code!r} is not 0 to 255 or '*'", at_key=True
            )
    for key in ("argv", "resume_argv"):
        for i, word in enumerate(_items(agent, key)):
            yield from _placeholders((*path, key, i), word, agent.get("prompt", "file"))
    for name, value in mapping(agent, "env").items():
        yield from _placeholders((*path, "env", name), value, "")
    argv = [w for w in _items(agent, "argv") if isinstance(w, str)]
    if agent.get("prompt") == "argument" and argv and not any("{prompt}" in w for w in argv):
        yield Finding(
            path=(*path, "argv"), what="has no {prompt}", remedy="add {prompt}, or set prompt: file or stdin"
        )


FIELDS = ("session", "text", "cost_usd", "tokens_in", "tokens_out", "turns")


def _settings(path: Path, agent: Mapping[str, Any]) -> Iterator[Finding]:
    """Settings that the agent's adapter does not have, and the one it cannot be without."""
    adapter = agent.get("adapter")
    if not isinstance(adapter, str) or adapter not in SETTINGS:
        return
    known = SETTINGS[adapter]
    for key in keys_at(path) & agent.keys() - known:
        homes = ", ".join(name for name in ADAPTERS if key in SETTINGS[name])
        yield Finding(
            path=(*path, key),
            what=f"adapter {adapter} has no {key} ({homes} has)",
            remedy=f"it has: {', '.join(sorted(known))}",
            at_key=True,
        )
    if adapter == "command" and not agent.get("argv"):
        what = "must not be empty" if "argv" in agent else "is missing"
        yield Finding(path=(*path, "argv"), what=what, remedy="add `argv:` with the command")
    for name in mapping(agent, "fields"):
        if name not in FIELDS:
            yield Finding(
                path=(*path, "fields", name),
                what=f"unknown field {name!r}",
                remedy=nearest(name, FIELDS),
                at_key=True,
            )


def _placeholders(path: Path, value: object, prompt: object) -> Iterator[Finding]:
    if not isinstance(value, str):
        return
    for word in PLACEHOLDER.findall(value):
        if word not in PLACEHOLDERS:
            remedy = f"{nearest(word, PLACEHOLDERS)} (for a literal one write {{{{{word}}}}})"
            yield Finding(path=path, what=f"unknown placeholder {{{word}}}", remedy=remedy)
        elif word == "prompt" and prompt != "argument":
            remedy = "use {prompt_file}" + (", or set prompt: argument" if prompt else "")
            yield Finding(
                path=path, what="{prompt} stands only in argv, with prompt: argument", remedy=remedy
            )


def _agents_of(path: Path, project: Mapping[str, Any], agents: Mapping[str, Any]) -> Iterator[Finding]:
    named = project.get("agent")
    names = [named] if isinstance(named, str) else list(named) if isinstance(named, list) else []
    for i, name in enumerate(names):
        if isinstance(name, str) and name not in agents:
            at = (*path, "agent", i) if isinstance(named, list) else (*path, "agent")
            remedy = nearest(name, agents) or "add it below `agents`"
            yield Finding(path=at, what=f"there is no agent {name!r}", remedy=remedy)
    if not names and not agents:
        yield Finding(path=path, what="has no agent", remedy="add one below `agents`")
    elif not names and len(agents) != 1:
        yield Finding(
            path=path, what="has no agent", remedy=f"add `agent:` with one of {', '.join(sorted(agents))}"
        )


def _gates_of(path: Path, project: Mapping[str, Any]) -> Iterator[Finding]:
    seen: set[str] = set()
    for i, gate in enumerate(_items(project, "gates")):
        name = gate.get("name") if isinstance(gate, Mapping) else None
        at = (*path, "gates", i, "name")
        if name in BUILTIN_GATES:
            yield Finding(path=at, what=f"{name!r} is a built-in gate", remedy="choose another name")
        elif isinstance(name, str) and name in seen:
            yield Finding(path=at, what=f"there are two gates {name!r}", remedy="choose another name")
        elif isinstance(name, str):
            seen.add(name)
    for i, name in enumerate(_items(mapping(project, "merge"), "gates")):
        if isinstance(name, str) and name not in seen:
            remedy = nearest(name, seen) or "add it to `gates` of the project"
            yield Finding(path=(*path, "merge", "gates", i), what=f"there is no gate {name!r}", remedy=remedy)


def mapping(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """`data[key]` when it is a mapping, else an empty one: its shape is pydantic's concern."""
    value = data.get(key)
    return value if isinstance(value, Mapping) else {}


def _items(data: Mapping[str, Any], key: str) -> list[Any]:
    value = data.get(key)
    return list(value) if isinstance(value, list) else []
