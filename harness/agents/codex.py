from harness.agents.command import CommandAdapter


class CodexAdapter(CommandAdapter): ...
