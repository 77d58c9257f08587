from harness.agents.command import CommandAdapter


class OpencodeAdapter(CommandAdapter): ...
