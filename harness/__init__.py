"""harness: a daemon that runs fleets of AI coding agents and loses nothing."""

__version__ = "0.1.0"
