"""One module for each peer: how it is told to make a queue, put jobs in and take them out. See `drive` for the functions."""
