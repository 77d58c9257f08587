"""Logging: a closed vocabulary of past-tense events, JSON lines off a terminal, secrets redacted.

The vocabulary is shared with the durable event stream (`events.py`); a test keeps every use inside it.
"""

from __future__ import annotations

from enum import StrEnum


class Event(StrEnum):
    """Everything that can be said to have happened. Values are what a person reads; they never change."""

    # store
    DROP_TAKEN = "drop_taken"
    DROP_IGNORED = "drop_ignored"
    ITEM_ADMITTED = "item_admitted"
    ITEM_REJECTED = "item_rejected"
    ITEM_PROMOTED = "item_promoted"
    ITEM_CLAIMED = "item_claimed"
    ATTEMPT_ENDED = "attempt_ended"
    ATTEMPT_EXPIRED = "attempt_expired"
    ATTEMPT_SUPERSEDED = "attempt_superseded"
    ITEM_PARKED = "item_parked"
    ITEM_HELD = "item_held"
    ITEM_RETRIED = "item_retried"
    ITEM_CANCELLED = "item_cancelled"
    ITEM_BOOSTED = "item_boosted"
    ITEM_SUBMITTED = "item_submitted"
    ITEM_RETURNED = "item_returned"
    ITEM_MERGED = "item_merged"
    ITEM_FINISHED = "item_finished"
    STORE_RECOVERED = "store_recovered"
    # attempt
    WORKTREE_PREPARED = "worktree_prepared"
    WORKTREE_KEPT = "worktree_kept"
    WORK_SALVAGED = "work_salvaged"
    SETUP_FINISHED = "setup_finished"
    AGENT_STARTED = "agent_started"
    AGENT_FINISHED = "agent_finished"
    GATE_PASSED = "gate_passed"
    GATE_FAILED = "gate_failed"
    HEAL_STARTED = "heal_started"
    SURVIVORS_KILLED = "survivors_killed"
    HUB_TAMPERED = "hub_tampered"
    # merging
    HUB_CREATED = "hub_created"
    LANE_TAKEN = "lane_taken"
    TARGET_FETCHED = "target_fetched"
    TARGET_PUBLISHED = "target_published"
    PUBLISH_REFUSED = "publish_refused"
    STALE_LOCK_REMOVED = "stale_lock_removed"
    # processes
    COORDINATOR_STARTED = "coordinator_started"
    COORDINATOR_STOPPED = "coordinator_stopped"
    CONFIG_RELOADED = "config_reloaded"
    CONFIG_REFUSED = "config_refused"
    DRAIN_STARTED = "drain_started"
    WORKER_SPAWNED = "worker_spawned"
    WORKER_ADOPTED = "worker_adopted"
    WORKER_STARTED = "worker_started"
    WORKER_STOPPED = "worker_stopped"
    WORKER_DIED = "worker_died"
    WORKER_HUNG = "worker_hung"
    WORKER_BACKED_OFF = "worker_backed_off"
    MERGER_SPAWNED = "merger_spawned"
    MERGER_DIED = "merger_died"
    PROCESS_FAILED = "process_failed"
    DISK_LOW = "disk_low"
    PAUSED = "paused"
    RESUMED = "resumed"
    STATE_DUMPED = "state_dumped"
