"""Releases: which version of which service was meant to run where, and what became of it."""
