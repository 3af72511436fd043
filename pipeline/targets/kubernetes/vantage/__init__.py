"""A Job beside the service that looks at a rollout from inside of the cluster.

Judges nothing: it says what it saw.
"""
