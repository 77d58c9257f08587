"""Measures the running daemon and tortures it: the figures of docs/figures.md come from here.

Everything drives the real `harnessctl run` on a real repository in a folder of its own. Nothing here is imported by the
product or by its tests, and what checks a result (`checker`) does not import the product.
"""
