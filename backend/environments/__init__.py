"""Environments: what runs where now."""
