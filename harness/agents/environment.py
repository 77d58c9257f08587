"""The environment of everything that runs agents' work: agents, gates, setup. An allow-list; secrets are not in it.

What an agent is to have besides (its variables, its credential) the adapter adds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

INHERITED = (
    "PATH",
    "LANG",
    "LANGUAGE",
    "LC_*",
    "TZ",
    "USER",
    "LOGNAME",
    "SHELL",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
)
NEVER = ("CLAUDECODE", "AI_AGENT", "HARNESS_ATTEMPT")
"""Say to a tool that it runs inside of another agent, or name another attempt: never handed on."""
ONLY_BY_NAME = ("CLAUDE_CODE_", "HARNESS_")
"""Handed on when named in full, not through a wildcard such as CLAUDE_*."""
DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin"


def passed(environ: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    """The variables of `environ` that `names` lets through; a trailing ``*`` in a name is a prefix."""
    out: dict[str, str] = {}
    for name in names:
        if name.endswith("*"):
            prefix = name[:-1]
            found = {
                k: v for k, v in environ.items() if k.startswith(prefix) and not k.startswith(ONLY_BY_NAME)
            }
            out.update(found)
        elif name in environ:
            out[name] = environ[name]
    return {k: v for k, v in out.items() if k not in NEVER}


def plain(environ: Mapping[str, str], *, home: Path, tmp: Path, name: str, slot: str) -> dict[str, str]:
    """The environment of a command that works in a worktree: nothing interactive, a HOME and TMPDIR of its own.

    Commits made in it are by `name`; nothing of the daemon is inherited but `INHERITED`.
    """
    env = {"PATH": DEFAULT_PATH, "LANG": "C.UTF-8", **passed(environ, INHERITED)}
    email = f"{slot}@harness.invalid"
    return env | {
        "HOME": str(home),
        "TMPDIR": str(tmp),
        "TERM": "dumb",
        "PAGER": "cat",
        "GIT_PAGER": "cat",
        "GIT_EDITOR": "true",  # `git commit` without a message fails at once instead of waiting for a person
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_AUTHOR_NAME": name,
        "GIT_AUTHOR_EMAIL": email,
        "GIT_COMMITTER_NAME": name,
        "GIT_COMMITTER_EMAIL": email,
    }
