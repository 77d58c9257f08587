"""What may be done to a root from outside: one function per verb, the same for command line, web page and MCP.

Every function takes a `Desk` (whose store, in whose name), returns values, raises `HarnessError`s, and prints nothing.
All of them work with the coordinator down: the protocol needs no server, a running coordinator only hears of it sooner.

=========  ==================================================================================
desk       a visit at a store: identity, disk, configuration, doorbells
acts       what people do to items: cancel, park, retry, boost
pool       the pool as a whole: pause, resume, drain, stop
choosing   which items are meant: by name, or by state, project, convoy, label
holdups    why a ready item is not taken yet
dropping   new work: put a file into the drop box
hearing    what became of drops
undecided  drops without a decision, and what a name means meanwhile
waiting    following items until they need no more work
changes    what an attempt changed, from the hub
sessions   which sessions of agents there are, and which one a name means
recounting what happened in one: entries, tools, healing, numbers
following  what one says, while it is said
exporting  one as a file, without HOME and without keys
founding   making a root
checking   fsck: every invariant of the store and its hubs
=========  ==================================================================================
"""
