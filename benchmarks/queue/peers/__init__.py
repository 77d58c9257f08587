"""Our store beside other queues that people use: jobs that do nothing, the same jobs for all, every job counted.

    ./scripts/bench queue [--quick] [--full] [--only NAME,...] [--dir DIR]

The peers are installed for the run into a folder that is removed afterwards (`install`); their servers are children of
this program (`servers`). One run of one peer is a process of its own (`drive`, with one module of `drivers` for each peer);
`rounds` runs all of them in turn, `report` prints, `cost` measures what only our store has.
"""
