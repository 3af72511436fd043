"""Jobs beside the service: one looks at a rollout from inside the cluster, one asks Prometheus there for a watch.

They judge nothing: they report what they saw.
"""
