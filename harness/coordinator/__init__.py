"""The coordinator: admits, promotes, hints; keeps the pool at size; ends what dead workers held; starts mergers.

`start` puts it together and `process` is the loop, a list of verbs; `intake` admits; `index` is what it knows of the items; `hinting` keeps ready/ as
`promote` decides; `pool` owns the workers' processes and `mergers` those of the mergers. Killing it disturbs no running
attempt: everything it knows is on disk, and the next one adopts what lives.
"""

from harness.coordinator.start import main

__all__ = ["main"]
