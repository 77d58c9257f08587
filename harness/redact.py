"""Secrets and control characters: what may be shown or written for people, of text that others wrote.

Used by everything that logs, emits events, or shows an agent's output.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any

REDACTED = "[redacted]"
_SHORTEST_SECRET = 6
"""A shorter value would also blank ordinary words."""

# What keys look like, whoever issued them. Each alternative starts with a literal, so that a scan stays cheap.
_KEY_LIKE = re.compile(
    r"""
    (?P<keep>\b(?:Bearer|Basic|token)\s+)[A-Za-z0-9._~+/=-]{12,}   # an Authorization header
    | \bsk-[A-Za-z0-9_-]{16,}                                      # Anthropic, OpenAI
    | \bgh[opsur]_[A-Za-z0-9]{20,} | \bgithub_pat_[A-Za-z0-9_]{20,}
    | \bglpat-[A-Za-z0-9_-]{20,}
    | \bxox[abeoprs]-[A-Za-z0-9-]{10,}                             # Slack
    | \bAKIA[A-Z0-9]{16}\b | \bASIA[A-Z0-9]{16}\b                 # AWS
    | \bAIza[A-Za-z0-9_-]{35}                                      # Google
    | (?P<scheme>\b[a-z][a-z0-9+.-]{1,20}://)[^\s/:@]{0,256}:[^\s/@]{1,256}(?=@)   # user:password@host
    | -----BEGIN[ ][A-Z ]{0,30}PRIVATE[ ]KEY-----.*?(?:-----END[ ][A-Z ]{0,30}PRIVATE[ ]KEY-----|\Z)
    """,
    re.VERBOSE | re.DOTALL,
)

_secrets: tuple[str, ...] = ()


def hide(values: Iterable[str]) -> None:
    """From now on these values (keys, tokens) are blanked in everything that is logged or emitted."""
    global _secrets
    found = {v.strip() for v in values}
    # The longest first: one secret may be the beginning of another.
    _secrets = tuple(
        sorted({*_secrets, *(v for v in found if len(v) >= _SHORTEST_SECRET)}, key=lambda v: (-len(v), v))
    )


def redact(text: str) -> str:
    """`text` without the hidden values and without anything that looks like a key. Best effort, by shape."""
    for secret in _secrets:
        text = text.replace(secret, REDACTED)
    return _KEY_LIKE.sub(lambda m: (m["keep"] or m["scheme"] or "") + REDACTED, text)


def plain(value: object, limit: int = 16_384) -> Any:
    """Any value -> redacted JSON-ready data; text longer than `limit` characters is cut in its middle."""
    match value:
        case float():
            return value if math.isfinite(value) else str(value)  # NaN is no JSON
        case None | bool() | int():
            return value
        case StrEnum():
            return value.value
        case str():
            text = redact(value)
            if len(text) > limit:
                half = limit // 2
                text = f"{text[:half]} [... {len(text) - 2 * half} characters ...] {text[-half:]}"
            return text
        case bytes():
            return plain(value.decode("utf-8", "replace"), limit)
        case Mapping():
            return {str(plain(k)): plain(v, limit) for k, v in value.items()}
        case list() | tuple() | set() | frozenset():
            return [plain(v, limit) for v in value]
        case _:
            return plain(str(value), limit)


_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """`text` that cannot steer a terminal: control and direction characters are shown as ``\\x1b``. Keeps \\t and \\n."""
    return _CONTROL.sub(lambda m: m[0].encode("unicode_escape").decode(), text)
