"""Validates config.yaml: text -> data with positions -> overrides -> one validation of the whole -> `Config`.

Imported only when something has to be validated: it brings pydantic and yaml, some 250 ms of CPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from harness.config import problems
from harness.config.models import VERSION, Config
from harness.config.problems import Finding, dotted, mapping
from harness.config.source import Source, variable
from harness.errors import ConfigError
from harness.yamlpos import Document, parse


def validate(source: Source) -> Config:
    """What `source` says, with paths as they are written there.

    Raises ConfigError (exit 78) with every problem, its line and its remedy.
    """
    document = parse(source.text)
    path, name = source.path, source.path.name
    if not isinstance(document.data, dict):
        found = [f"{name}:{p.mark} {p.what}" for p in document.problems]
        raise _error(path, found or [f"{name}:1:1 must be a mapping that begins with `v: {VERSION}`"])
    _accept_rigs(document)
    data: dict[str, Any] = document.data
    _check_version(path, data, document)
    origins = {dotted(p): f"{name}:{mark}" for p, mark in document.values.items() if p}
    overrides = _overrides(source)
    for setting, (value, origin) in overrides.items():
        _put(data, setting, value)
        origins[setting] = origin
    found = [f"{name}:{p.mark} {dotted(p.path)}: {p.what}" for p in document.problems]
    config, findings = _validate(data)
    for finding in findings:
        at = dotted(finding.path)
        if at in overrides:
            found.append(f"{overrides[at][1]}: {finding}")
            continue
        mark = document.key_mark(finding.path) if finding.at_key else document.value_mark(finding.path)
        found.append(f"{name}:{mark} {at}: {finding}")
    if found or config is None:
        raise _error(path, sorted(found, key=_by_line))
    object.__setattr__(config, "origins", origins)
    return config


def _error(path: Path, found: list[str]) -> ConfigError:
    count = "1 problem" if len(found) == 1 else f"{len(found)} problems"
    return ConfigError(f"the configuration has {count}", where=path, problems=found)


def _by_line(problem: str) -> tuple[int, int]:
    place = problem.split(" ", 1)[0].split(":")
    return (int(place[1]), int(place[2])) if len(place) > 2 and place[1].isdigit() else (0, 0)


def _check_version(path: Path, data: Mapping[str, Any], document: Document) -> None:
    """Another version is not guessed at: nothing else in the file can be judged."""
    version = data.get("v", VERSION)
    if isinstance(version, int) and version != VERSION:
        place = f"{path.name}:{document.value_mark(('v',))}"
        raise _error(path, [f"{place} v: is {version}, this program knows {VERSION}; upgrade harness"])


def _accept_rigs(document: Document) -> None:
    """`rigs:` is another word for `projects:`."""
    data = document.data
    if "rigs" not in data or "projects" in data:
        return
    data["projects"] = data.pop("rigs")
    for places in (document.values, document.keys):
        for path in [p for p in places if p[:1] == ("rigs",)]:
            places[("projects", *path[1:])] = places.pop(path)


def _validate(data: dict[str, Any]) -> tuple[Config | None, list[Finding]]:
    """All findings at once; a Config only when there is none."""
    findings = [*problems.unknown_adapters(data), *problems.cross_checks(data)]
    for name, project in mapping(data, "projects").items():
        if isinstance(project, Mapping) and "name" in project:
            findings.append(problems.unknown_key(("projects", name, "name")))
    config = None
    try:
        config = _adapter().validate_python(_completed(data))
    except ValidationError as e:
        findings += problems.from_pydantic(e.errors(include_url=False))
    return (None if findings else config), findings


def _completed(data: Mapping[str, Any]) -> dict[str, Any]:
    """What is implied, written out: a project's name, the only agent as default, empty sections."""
    agents = mapping(data, "agents")
    projects = data.get("projects")
    if isinstance(projects, Mapping):
        projects = {name: _project(name, value, agents) for name, value in projects.items()}
    bad = {finding.path[1] for finding in problems.unknown_adapters(data)}
    usable = {name: agent for name, agent in agents.items() if name not in bad}
    out = {**data, "projects": projects, "agents": usable if bad else data.get("agents")}
    # A section whose entries are all commented out is null in YAML: it means "nothing here".
    return {k: v for k, v in out.items() if v is not None or k not in ("projects", "agents", "credentials")}


def _project(name: str, value: Any, agents: Mapping[str, Any]) -> Any:
    if not isinstance(value, Mapping):
        return value
    default = {"agent": tuple(agents)} if len(agents) == 1 and not value.get("agent") else {}
    return {**value, "name": name, **default}


@cache
def _adapter() -> TypeAdapter[Config]:
    return TypeAdapter(Config)


def _overrides(source: Source) -> dict[str, tuple[object, str]]:
    """Setting -> its value and where that comes from."""
    given: dict[str, tuple[object, str]] = {
        setting: (parse(text).data, variable(setting)) for setting, text in source.variables.items()
    }
    return given | {setting: (value, f"option {setting}") for setting, value in source.options.items()}


def _put(data: dict[str, Any], setting: str, value: object) -> None:
    section, _, key = setting.rpartition(".")
    if not section:
        data[key] = value
    elif isinstance(data.get(section), dict) or data.get(section) is None:
        data[section] = {**(data.get(section) or {}), key: value}
