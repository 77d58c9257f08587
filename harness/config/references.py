"""Words in config.yaml that stand for something else: placeholders in braces, and variables of the daemon's environment."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from harness.errors import ConfigError

PLACEHOLDERS = ("prompt", "prompt_file", "worktree", "session", "model", "run_id", "run_dir")
PLACEHOLDER = re.compile(r"(?<![{$])\{([a-z][a-z_]*)\}(?!\})")
"""``{word}`` in an argv or env value. ``${word}`` is not one; ``{{word}}`` stands for a literal ``{word}``."""
REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
"""``${NAME}`` in an agent's env or a credential's file: from the daemon's environment, when the agent starts."""


def expand(text: str, environ: Mapping[str, str], *, where: str) -> str:
    """Replaces ``${NAME}``. Raises ConfigError when a name is not set; the value never shows in a message."""

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name not in environ:
            raise ConfigError(
                f"the variable {name} is not set", where=where, remedy=f"set {name} for the daemon"
            )
        return environ[name]

    return REFERENCE.sub(value, text)


def expanded(text: str) -> str:
    """With the ``${NAME}`` that our own environment has; what is not set stays. For looking at a file: never raises."""
    return REFERENCE.sub(lambda match: os.environ.get(match[1], match[0]), text)
