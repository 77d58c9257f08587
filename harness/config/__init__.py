"""The configuration: one file, validated whole, as frozen values.

`load` is the only way in; nothing else in the product reads config.yaml.
"""

from harness.config.loading import expand, load, scalar_settings
from harness.config.models import (
    ADAPTERS,
    BUILTIN_GATES,
    Agent,
    Checkout,
    CommitBy,
    Config,
    Credential,
    Disk,
    Durability,
    Gate,
    Heal,
    Health,
    Instructions,
    Intake,
    Merge,
    OutcomeName,
    Pattern,
    Project,
    PromptBy,
    Publish,
    Retry,
    Sandbox,
    Setup,
)
from harness.config.rules import PLACEHOLDER, URL
from harness.config.showing import Setting, settings
from harness.config.template import AgentKind, agent_entry, template

__all__ = [
    "ADAPTERS",
    "BUILTIN_GATES",
    "PLACEHOLDER",
    "URL",
    "Agent",
    "AgentKind",
    "Checkout",
    "CommitBy",
    "Config",
    "Credential",
    "Disk",
    "Durability",
    "Gate",
    "Heal",
    "Health",
    "Instructions",
    "Intake",
    "Merge",
    "OutcomeName",
    "Pattern",
    "Project",
    "PromptBy",
    "Publish",
    "Retry",
    "Sandbox",
    "Setting",
    "Setup",
    "agent_entry",
    "expand",
    "load",
    "scalar_settings",
    "settings",
    "template",
]
