"""The rules of `monitoring/`: those that follow from `[tool.slipway.slo]`, what Kubernetes is given, what is wrong.

Knows what is watched and by which metrics, and nothing of who collects them.
"""
