"""The whole daemon with a real agent: its model is the model server, and there is no other way out."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from harness import sessionrecord
from harness.sessionrecord import SessionRecord
from tests.agents.server import ModelServer
from tests.daemons import Daemon, daemon

VARIABLES: Mapping[str, str] = {
    "claude": "HARNESS_AGENT_CLAUDE",
    "claude-old": "HARNESS_AGENT_CLAUDE_OLD",
    "codex": "HARNESS_AGENT_CODEX",
    "gemini": "HARNESS_AGENT_GEMINI",
    "opencode": "HARNESS_AGENT_OPENCODE",
}
BINARIES: Mapping[str, str] = {name: os.environ.get(variable, "") for name, variable in VARIABLES.items()}
CONVERSATION = r"Item: ([a-z0-9-]+)"
"""Every prompt of an attempt names its item: the server tells conversations apart by it."""

_CODEX = """\
model = "mock-model"
model_provider = "test"
[model_providers.test]
name = "test"
base_url = "{url}/v1"
env_key = "MODEL_KEY"
wire_api = "responses"
request_max_retries = 0
stream_max_retries = {retries}
"""


def agent(name: str, url: str, base: Path, proxies: Mapping[str, str], **more: Any) -> dict[str, Any]:
    """What config.yaml says of it."""
    if not BINARIES[name]:
        pytest.skip(f"{VARIABLES[name]} names no {name}: scripts/test-agents installs it and sets that")
    kind = "claude" if name == "claude-old" else name
    made: dict[str, Any] = {"adapter": kind, "binary": BINARIES[name], "credential": "team"}
    env: dict[str, str] = dict(proxies)
    place = base / "config" / name
    place.mkdir(parents=True)
    match kind:
        case "claude":
            env["ANTHROPIC_BASE_URL"] = url
            made["model"] = "claude-sonnet-4-5"
        case "codex":
            (place / "config.toml").write_text(_CODEX.format(url=url, retries=more.pop("retries", 2)))
            made["config_from"] = str(place)
        case "gemini":
            env["GOOGLE_GEMINI_BASE_URL"] = url
            made["model"] = "gemini-2.5-pro"
        case "opencode":
            model = {
                "name": "m",
                "cost": {"input": 3, "output": 15},
                "limit": {"context": 200_000, "output": 8000},
            }
            provider = {
                "npm": "@ai-sdk/openai-compatible",
                "name": "test",
                "options": {"baseURL": f"{url}/v1", "apiKey": "{env:MODEL_KEY}"},
                "models": {"mock-model": model},
            }
            settings = {"small_model": "test/mock-model", "provider": {"test": provider}}
            (place / "opencode.json").write_text(json.dumps(settings))
            made["config_from"] = str(place)
            made["model"] = "test/mock-model"
        case _:
            raise AssertionError(kind)
    return made | more | {"env": env | more.get("env", {})}


KEYS = {"claude": "ANTHROPIC_API_KEY", "claude-old": "ANTHROPIC_API_KEY", "gemini": "GEMINI_API_KEY"}


@contextlib.contextmanager
def fleet(
    name: str, server: ModelServer, scenario: str, base: Path, *, key: str = "", **settings: Any
) -> Iterator[Daemon]:
    """A daemon whose only agent is `name`; `settings` are of config.yaml, `agent` of the agent itself,
    `key_variable` what the credential is called."""
    secret = base / "model.key"
    secret.write_text("dummy-key-of-nobody\n")
    secret.chmod(0o600)
    made = agent(name, server.base(scenario, key), base, server.proxies(), **settings.pop("agent", {}))
    variable = settings.pop("key_variable", KEYS.get(name, "MODEL_KEY"))
    credential = {"variable": variable, "file": str(secret)}
    project = {"agent": "tool"} | settings.pop("project", {})
    with daemon(
        base, agents={"tool": made}, credentials={"team": credential}, project=project, **settings
    ) as d:
        yield d


def sessions(d: Daemon, item: str) -> list[SessionRecord]:
    """Every session of an item, in the order of their attempts."""
    found = [sessionrecord.read(path) for path in sorted(d.layout.sessions.glob("*/*/summary.json"))]
    return [record for record in found if record is not None and record.item == item]


def session(d: Daemon, item: str) -> SessionRecord:
    (record,) = sessions(d, item)
    return record
