"""Which adapter serves an agent of config.yaml. The list of names is `config.ADAPTERS`."""

from __future__ import annotations

from harness.agents.base import Adapter
from harness.agents.command import CommandAdapter
from harness.config import Agent, Credential


def adapter_for(agent: Agent, credential: Credential | None) -> Adapter:
    """A new adapter, for one run."""
    match agent.adapter:
        case "command":
            return CommandAdapter(agent, credential)
