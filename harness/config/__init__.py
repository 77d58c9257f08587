"""The configuration: one file, validated whole, as frozen values.

`load` is the only way in; nothing else in the product reads config.yaml. What only people look at is not imported here:
`showing` (every setting in force), `template` (what `init` writes).
"""

from harness.config.loading import load
from harness.config.models import (
    ADAPTERS,
    BUILTIN_GATES,
    LOGINS,
    SETTINGS,
    Agent,
    Budget,
    Budgets,
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
    Output,
    Pattern,
    Price,
    Project,
    PromptBy,
    Publish,
    Retry,
    Sandbox,
    Setup,
)
from harness.config.references import PLACEHOLDER, expand, expanded
from harness.config.rules import URL
from harness.config.source import scalar_settings

__all__ = [
    "ADAPTERS",
    "BUILTIN_GATES",
    "LOGINS",
    "PLACEHOLDER",
    "SETTINGS",
    "URL",
    "Agent",
    "Budget",
    "Budgets",
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
    "Output",
    "Pattern",
    "Price",
    "Project",
    "PromptBy",
    "Publish",
    "Retry",
    "Sandbox",
    "Setup",
    "expand",
    "expanded",
    "load",
    "scalar_settings",
]
