"""A rollout as Kubernetes does it: watched, explained where it stops, baked once it is done.

Knows no release but by its name.
"""
