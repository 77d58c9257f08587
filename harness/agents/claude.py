from harness.agents.command import CommandAdapter


class ClaudeAdapter(CommandAdapter): ...
