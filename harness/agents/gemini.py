from harness.agents.command import CommandAdapter


class GeminiAdapter(CommandAdapter): ...
