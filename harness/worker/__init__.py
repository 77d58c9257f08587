"""The worker: an independent process with a name and a worktree that runs one attempt at a time.

`process` is the loop (claim, idle, signals, beat); `attempt` is what happens between a claim and its end,
and is loaded after the first claim or in idle time; `agentruns` are the runs of the agent in it, and `wallet` pays them.
It meets the coordinator only in the file system, survives it, and needs nothing from it while it works.
"""
