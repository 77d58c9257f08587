"""The text of a drop: one item or many, or *all* the reasons why it is neither.

Pure: bytes in, drafts or reasons out; no clock, no disk. What a person wrote is untrusted: any bytes get an answer.
Places are 1-based line and column of the value that is wrong.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from difflib import get_close_matches
from graphlib import CycleError, TopologicalSorter
from pathlib import PurePosixPath
from typing import Any

from pydantic import ValidationError

from harness.dataclass import dataclass
from harness.store.draft import ALIASES, MAX_AGENTS, Draft
from harness.store.loading import SHOWN, Reason, load_json, load_yaml, shown, too_much
from harness.store.positions import Places, line_column

MAX_ITEMS = 10_000
"""Items in one drop. More is a mistake, or a job for several files."""
MAX_FIELDS = 200
"""Of one item; it has 17, and each unknown one gets a reason."""
MAX_REASONS = 50
"""What is wrong with a drop is told so far: nobody reads more, and a stranger can make millions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """What a file in the drop box turned out to be: `drafts`, or `reasons` against all of it."""

    name: str
    many: bool
    drafts: tuple[Draft, ...] = ()
    reasons: tuple[Reason, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a draft is checked against: names that exist. `projects`: name -> its default agents."""

    projects: Mapping[str, tuple[str, ...]]
    agents: tuple[str, ...]
    max_attempts: int = 3
    max_bytes: int = 16 << 20

    def project_of(self, draft: Draft) -> str:
        return draft.project or (next(iter(self.projects)) if len(self.projects) == 1 else "")

    def agents_of(self, draft: Draft) -> tuple[str, ...]:
        return tuple(draft.agent) or self.projects[self.project_of(draft)]


def suffix_of(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def stem_of(name: str) -> str:
    """The default id of a drop: its file name without the suffix, readable whatever the bytes were."""
    stem = name[: len(name) - len(suffix_of(name))] or name
    shown = stem.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else "?" for c in shown).strip()[:200] or "item"


def default_id(stem: str, k: int) -> str:
    """What the k-th item (from 0) of a drop with many is called when it does not say."""
    return f"{stem}-{k + 1}"


def is_whole(name: str, raw: bytes) -> bool:
    """Can these bytes be all of the file? A proper prefix of a JSON object or list is never valid JSON.

    Not so for `.jsonl` and YAML: True says nothing there beyond "it parses" (a quiet window must pass as well).
    """
    try:
        if suffix_of(name) == ".json":
            if too_much(raw):
                return False  # it will be refused, unread; but perhaps it is still being written
            return isinstance(json.loads(raw.decode("utf-8-sig")), (dict, list))
        return bool(raw.strip())
    except (ValueError, RecursionError):
        return False


def parse(name: str, raw: bytes, context: Context) -> Drop:
    """A drop's bytes -> Drop. Never raises for any input."""
    suffix = suffix_of(name)
    many = suffix == ".jsonl"
    if len(raw) > context.max_bytes:
        return Drop(name=name, many=many, reasons=(too_large(context.max_bytes),))
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        line, column = line_column(raw[: e.start].decode("utf-8", "replace"), e.start)
        what = f"is not UTF-8 text (byte {e.start}: 0x{raw[e.start]:02x}); save the file as UTF-8"
        return Drop(name=name, many=many, reasons=(Reason(what=what, line=line, column=column),))
    if not text.strip():
        return Drop(
            name=name, many=many, reasons=(Reason(what="is empty; write one item, or a list of items"),)
        )
    if suffix not in (".yaml", ".yml") and (reason := too_much(raw, lines=many)):
        return Drop(name=name, many=many, reasons=(reason,))
    match suffix:
        case ".jsonl":
            return _parse_lines(name, text, context)
        case ".yaml" | ".yml":
            value, positions, reason = load_yaml(text)
        case _:
            value, positions, reason = load_json(text)
    if reason:
        return Drop(name=name, many=False, reasons=(reason,))
    if isinstance(value, list):
        count = min(len(value), MAX_ITEMS)
        return _many(name, value, [(f"[{k}]", positions, (k,)) for k in range(count)], context)
    draft, reasons = _draft(value, "", positions, (), context)
    if draft and draft.id is None and stem_of(name) in draft.required:
        reasons.append(_itself(stem_of(name)))
    return Drop(
        name=name, many=False, drafts=(draft,) if draft and not reasons else (), reasons=_told(reasons)
    )


def _told(reasons: list[Reason]) -> tuple[Reason, ...]:
    """All of them, or the first `MAX_REASONS` and a word about the rest."""
    if len(reasons) <= MAX_REASONS:
        return tuple(reasons)
    return (*reasons[:MAX_REASONS], Reason(what=f"and more; these are the first {MAX_REASONS} reasons"))


def too_large(limit: int) -> Reason:
    return Reason(what=f"is larger than {limit >> 20} MiB (intake.max_bytes in config.yaml); split it")


def _parse_lines(name: str, text: str, context: Context) -> Drop:
    lines = [(k, line) for k, line in enumerate(text.split("\n"), 1) if line and not line.isspace()]
    if len(lines) > MAX_ITEMS:
        return Drop(name=name, many=True, reasons=(_too_many(len(lines)),))
    values: list[Any] = []
    places: list[tuple[str, Places, tuple[Any, ...]]] = []
    reasons: list[Reason] = []
    for number, line in lines:
        value, positions, reason = load_json(line, number)
        if reason:
            reasons.append(reason)
            if len(reasons) > MAX_REASONS:
                break
        else:
            values.append(value)
            places.append((f"line {number}", positions, ()))
    return _many(name, values, places, context, reasons)


def _too_many(count: int) -> Reason:
    return Reason(what=f"has {count} items, at most {MAX_ITEMS} fit in one drop; split it")


def _many(
    name: str,
    values: list[Any],
    places: list[tuple[str, Places, tuple[Any, ...]]],
    context: Context,
    before: list[Reason] | None = None,
) -> Drop:
    reasons = list(before or ())
    if not values and not reasons:
        reasons.append(Reason(what="is an empty list; write at least one item"))
    if len(values) > MAX_ITEMS:
        return Drop(name=name, many=True, reasons=(_too_many(len(values)),))
    drafts: list[Draft] = []
    for value, (label, positions, prefix) in zip(values, places, strict=True):
        if len(reasons) > MAX_REASONS:
            break
        draft, found = _draft(value, label, positions, prefix, context)
        reasons += found
        if draft:
            drafts.append(draft)
    if not reasons:
        reasons += _whole_batch(drafts, stem_of(name))
    return Drop(name=name, many=True, drafts=() if reasons else tuple(drafts), reasons=_told(reasons))


def _itself(default: str) -> Reason:
    what = f"an item cannot depend on itself; without an id of its own it is called {default!r}"
    return Reason(what=what, where="depends_on")


def _whole_batch(drafts: list[Draft], stem: str) -> list[Reason]:
    """What only shows when all items of a batch are seen together: ids used twice, cycles."""
    reasons: list[Reason] = []
    seen: set[str] = set()
    for draft in drafts:
        if draft.id is not None and draft.id in seen:
            reasons.append(Reason(what=f"the id {draft.id!r} is used by two items of this file", where="id"))
        elif draft.id is not None:
            seen.add(draft.id)
    called = [default_id(stem, k) if d.id is None else d.id for k, d in enumerate(drafts)]
    graph = {x: [y for y in d.required if y != x] for x, d in zip(called, drafts, strict=True)}
    reasons += [_itself(x) for x, d in zip(called, drafts, strict=True) if d.id is None and x in d.required]
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as e:
        circle = list(reversed(e.args[1]))
        more = f" … ({len(circle) - 1} items)" if len(circle) > 20 else ""
        what = f"the items wait for each other in a circle: {' -> '.join(circle[:20])}{more}"
        reasons.append(Reason(what=what))
    return reasons


def _draft(
    value: Any, label: str, positions: Places, prefix: tuple[Any, ...], context: Context
) -> tuple[Draft | None, list[Reason]]:
    def reason(what: str, loc: tuple[Any, ...]) -> Reason:
        field = ".".join(str(x)[:SHOWN] for x in loc if not isinstance(x, int))
        field += "".join(f"[{x}]" for x in loc if isinstance(x, int))
        line, column = positions.nearest((*prefix, *loc))
        where = ".".join(x for x in (label, field) if x)
        return Reason(what=what, where=where, line=line, column=column)

    if not isinstance(value, dict):
        kind = {str: "a string", list: "a list", type(None): "null", bool: "true or false"}.get(
            type(value), "a number"
        )
        return None, [reason(f"an item is a JSON object with at least a prompt, this is {kind}", ())]
    if len(value) > MAX_FIELDS:
        return None, [reason(f"has {len(value)} fields; known: {', '.join(Draft.model_fields)}", ())]
    renamed = {str(k): v for k, v in value.items()}
    for alias in value.keys() & ALIASES.keys():
        if sum(ALIASES.get(k, k) == ALIASES[alias] for k in value) == 1:
            renamed[ALIASES[alias]] = renamed.pop(alias)
    draft = None
    reasons: list[Reason] = []
    try:
        draft = Draft.model_validate(renamed)
    except ValidationError as e:
        found = e.errors(include_url=False, include_input=False)
        reasons += [_explained(x, reason) for x in found[: MAX_REASONS + 1]]
    except RecursionError:
        return None, [reason("is nested too deeply", ())]
    reasons += [reason(what, loc) for what, loc in _names(renamed, context)]
    if draft and draft.id is not None and draft.id in draft.required:
        reasons.append(reason("an item cannot depend on itself", ("depends_on",)))
    return draft, reasons


def _names(value: dict[str, Any], context: Context) -> list[tuple[str, tuple[Any, ...]]]:
    """What is wrong with the names of projects and agents; works on a draft with other errors too."""
    found: list[tuple[str, tuple[Any, ...]]] = []
    project = value.get("project")
    if not context.projects:
        found.append(("no project is configured; add one under projects: in config.yaml", ()))
    elif isinstance(project, str) and project not in context.projects:
        found.append((_unknown("project", project, tuple(context.projects)), ("project",)))
    elif project is None and len(context.projects) > 1:
        names = ", ".join(sorted(context.projects))
        found.append((f"project is missing and there is more than one; choose one of: {names}", ()))
    agents = value.get("agent", [])
    for k, agent in enumerate(
        [agents] if isinstance(agents, str) else agents[:MAX_AGENTS] if isinstance(agents, list) else []
    ):
        if isinstance(agent, str) and agent not in context.agents:
            found.append(
                (
                    _unknown("agent", agent, context.agents),
                    ("agent",) if isinstance(agents, str) else ("agent", k),
                )
            )
    return found


def _explained(error: Any, reason: Any) -> Reason:
    loc = tuple(x for x in error["loc"] if x not in ("str", "Dependency", "constrained-str"))
    last = str(loc[-1]) if loc else ""
    match error["type"]:
        case "missing":
            what = f"{last} is missing" if last != "prompt" else "prompt is missing: say what is to be done"
            return reason(what, loc[:-1])  # type: ignore[no-any-return]
        case "extra_forbidden":
            if last in ALIASES:
                return reason(f"says the same as another field, {ALIASES[last]}; keep one of them", loc)  # type: ignore[no-any-return]
            near = get_close_matches(last[:SHOWN], (*Draft.model_fields, *ALIASES), 1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(Draft.model_fields)}"
            return reason(f"unknown field {shown(last)}{hint}", loc)  # type: ignore[no-any-return]
        case "value_error":
            return reason(str(error["ctx"]["error"]), loc)  # type: ignore[no-any-return]
        case _:
            message = str(error["msg"])
            return reason(message[:1].lower() + message[1:], loc)  # type: ignore[no-any-return]


def _unknown(kind: str, name: str, known: tuple[str, ...]) -> str:
    near = get_close_matches(name[:SHOWN], known, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"there is no {kind} {shown(name)} in config.yaml{hint} (there is: {', '.join(sorted(known)) or 'none'})"
