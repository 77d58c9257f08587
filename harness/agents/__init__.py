"""Adapters: what is special about each agent tool, behind one interface (`base.py`)."""
