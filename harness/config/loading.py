"""Reads config.yaml: text -> data with positions -> overrides -> one validation of the whole -> `Config`.

Order of origin: option > ``HARNESS_*`` > file > default. Only scalar settings can be overridden: those at the top
(``HARNESS_WORKERS``) and those one level below (``HARNESS_HEALTH_BEAT_S``).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from harness.config import problems
from harness.config.models import VERSION, Config
from harness.config.problems import Finding, dotted, mapping
from harness.config.rules import REFERENCE
from harness.errors import ConfigError
from harness.yamlpos import Document, parse

MAX_BYTES = 4 << 20


def load(
    path: Path, *, options: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None
) -> Config:
    """The configuration in force. Raises ConfigError (exit 78) with every problem, its line and its remedy.

    `options` are dotted settings from a command line (``{"workers": 5}``); None among them means "not given".
    """
    document = parse(_read(path))
    source = path.name
    if not isinstance(document.data, dict):
        found = [f"{source}:{p.mark} {p.what}" for p in document.problems]
        raise _error(path, found or [f"{source}:1:1 must be a mapping that begins with `v: {VERSION}`"])
    _accept_rigs(document)
    data: dict[str, Any] = document.data
    _check_version(path, data, document)
    origins = {dotted(p): f"{source}:{mark}" for p, mark in document.values.items() if p}
    overrides = dict(_overrides(os.environ if environ is None else environ, options or {}))
    for setting, (value, origin) in overrides.items():
        _put(data, setting, value)
        origins[setting] = origin
    found = [f"{source}:{p.mark} {dotted(p.path)}: {p.what}" for p in document.problems]
    config, findings = _validate(data, path.parent)
    for finding in findings:
        at = dotted(finding.path)
        if at in overrides:
            found.append(f"{overrides[at][1]}: {finding}")
            continue
        mark = document.key_mark(finding.path) if finding.at_key else document.value_mark(finding.path)
        found.append(f"{source}:{mark} {at}: {finding}")
    if found or config is None:
        raise _error(path, sorted(found, key=_by_line))
    object.__setattr__(config, "origins", origins)
    return config


def _read(path: Path) -> str:
    remedy = "make one with: harnessctl init"
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError("there is no configuration", where=path, remedy=remedy) from None
    except OSError as e:
        raise ConfigError(f"cannot be read: {e.strerror}", where=path, remedy="see its permissions") from e
    if len(raw) > MAX_BYTES:
        raise ConfigError(f"is bigger than {MAX_BYTES >> 20} MiB", where=path, remedy=remedy)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        line = raw.count(b"\n", 0, e.start) + 1
        raise ConfigError("is not UTF-8", where=f"{path}:{line}", remedy="save it as UTF-8") from None


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


def _validate(data: dict[str, Any], base: Path) -> tuple[Config | None, list[Finding]]:
    """All findings at once; a Config only when there is none."""
    findings = [*problems.unknown_adapters(data), *problems.cross_checks(data)]
    for name, project in mapping(data, "projects").items():
        if isinstance(project, Mapping) and "name" in project:
            findings.append(problems.unknown_key(("projects", name, "name")))
    config = None
    try:
        config = _adapter().validate_python(_completed(data), context={"base": base.resolve()})
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


def scalar_settings() -> Iterator[str]:
    """Dotted names of the settings that options and the environment can override."""
    for field in fields(Config):
        section: Any = field.default_factory
        if is_dataclass(section):
            yield from (f"{field.name}.{below.name}" for below in fields(section))
        elif field.name not in ("v", "projects", "agents", "credentials", "origins"):
            yield field.name


def _overrides(
    environ: Mapping[str, str], options: Mapping[str, object]
) -> Iterator[tuple[str, tuple[object, str]]]:
    for setting in scalar_settings():
        variable = "HARNESS_" + setting.upper().replace(".", "_")
        if options.get(setting) is not None:
            yield setting, (options[setting], f"option {setting}")
        elif environ.get(variable):
            yield setting, (parse(environ[variable]).data, variable)


def _put(data: dict[str, Any], setting: str, value: object) -> None:
    section, _, key = setting.rpartition(".")
    if not section:
        data[key] = value
    elif isinstance(data.get(section), dict) or data.get(section) is None:
        data[section] = {**(data.get(section) or {}), key: value}


def expand(text: str, environ: Mapping[str, str], *, where: str) -> str:
    """Replaces ``${NAME}``. Raises ConfigError when a name is not set; the value never shows in a message."""

    def value(match: Any) -> str:
        name = match[1]
        if name not in environ:
            raise ConfigError(
                f"the variable {name} is not set", where=where, remedy=f"set {name} for the daemon"
            )
        return environ[name]

    return REFERENCE.sub(value, text)
