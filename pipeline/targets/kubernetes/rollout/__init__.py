"""A rollout as Kubernetes does it: watched, explained where it stops, baked once it is done.

It knows a release by its name alone.
"""
