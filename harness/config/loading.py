"""The way in: config.yaml as it is now, as a `Config`; validated anew only when somebody has not done that before."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from harness.config import kept
from harness.config.models import Config
from harness.config.rules import URL
from harness.config.source import Source


def load(
    path: Path,
    *,
    options: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
    cache: Path | None = None,
) -> Config:
    """The configuration in force. Raises ConfigError (exit 78) with every problem, its line and its remedy.

    `options` are dotted settings from a command line (``{"workers": 5}``); None among them means "not given".
    `cache`: where what was validated is kept (Layout.validated); without it everything is validated.
    """
    source = Source.read(path, options or {}, os.environ if environ is None else environ)
    config = kept.read(cache, source) if cache else None
    if config is None:
        from harness.config.validation import validate

        config = validate(source)
        if cache:
            kept.write(cache, source, config)
    return _placed(config, path.parent.resolve())


def _placed(config: Config, base: Path) -> Config:
    """With absolute paths: relative ones start at the configuration file. Each time, for links and homes may change."""
    projects = {name: replace(p, path=_absolute(p.path, base)) for name, p in config.projects.items()}
    credentials = {
        name: replace(c, file=_absolute(c.file, base)) if c.file else c
        for name, c in config.credentials.items()
    }
    agents = {
        name: replace(a, config_from=_absolute(a.config_from, base)) if a.config_from else a
        for name, a in config.agents.items()
    }
    placed = replace(config, projects=projects, credentials=credentials, agents=agents)
    object.__setattr__(placed, "origins", config.origins)
    return placed


def _absolute(value: str, base: Path) -> str:
    """A URL stays as it is, and what begins with a variable."""
    return (
        value
        if URL.match(value) or value.startswith("${")
        else os.path.realpath(base / os.path.expanduser(value))
    )
