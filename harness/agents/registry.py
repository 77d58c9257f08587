"""Which adapter serves an agent of config.yaml. The list of names is `config.ADAPTERS`."""

from __future__ import annotations

from harness.agents.base import Adapter
from harness.config import Agent, Credential


def adapter_for(agent: Agent, credential: Credential | None) -> Adapter:
    """A new adapter, for one run. Each is imported when it is needed: a worker seldom runs more than one."""
    match agent.adapter:
        case "claude":
            from harness.agents.claude import ClaudeAdapter

            return ClaudeAdapter(agent, credential)
        case "codex":
            from harness.agents.codex import CodexAdapter

            return CodexAdapter(agent, credential)
        case "gemini":
            from harness.agents.gemini import GeminiAdapter

            return GeminiAdapter(agent, credential)
        case "opencode":
            from harness.agents.opencode import OpencodeAdapter

            return OpencodeAdapter(agent, credential)
        case "command":
            from harness.agents.command import CommandAdapter

            return CommandAdapter(agent, credential)
