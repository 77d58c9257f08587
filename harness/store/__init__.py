"""The work queue: a directory protocol of write-once cells (docs/protocol.md).

The protocol is written once, as generators that yield one file-system operation at a time (`ops`): `disk` runs them
on real system calls, a test or the explorer runs the very same code step by step on anything else.

=============  =====================================================================================
ops            the operations: the whole vocabulary between protocol and file system
cells          publish (the one primitive), look (what state is an item in), parked
admission      take, admit one or many, reject, explicit ids, promote
attempts       claim, end, expire, finish
operators      cancel, hold, stop, retry: what people do
lane           the merge lane: take it, judge a submitted result
disk           the operations as system calls
dropbox        which files in the drop box are ready to be taken
drops          text of a drop -> drafts of items, or all reasons against it
sweeping       private files and empty homes that the dead left
hints          ready/: where claimable items are probably found
view           reading the store for people: every item with its state
fsck           every invariant that can be checked on the tree (invariants: of one item; provenance: of drops)
repair         what can be put right without guessing
=============  =====================================================================================
"""
