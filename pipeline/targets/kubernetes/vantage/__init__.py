"""A Job beside the service that looks at a rollout from inside the cluster.

It judges nothing: it reports what it saw.
"""
