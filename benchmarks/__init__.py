"""Measures the running daemon and tortures it: the figures of docs/figures.md come from here.

Everything but `containment` drives the real `harnessctl run` on a real repository in a folder of its own. The product knows
nothing of this package, and what checks a result (`checker`) nothing of the product: it reads files and asks git.
"""
