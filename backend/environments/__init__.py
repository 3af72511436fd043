"""Environments: what is running where."""
