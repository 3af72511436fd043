"""What the service's metrics say of its traffic: read from the replicas themselves, or asked of a Prometheus.

Knows two metrics by name, and neither a target nor who looks at the figures.
"""
