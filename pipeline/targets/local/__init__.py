"""The local target: PostgreSQL, Valkey and Caddy out of PyPI wheels, the service as supervised processes."""

from pipeline.targets.local.target import LocalTarget

__all__ = ["LocalTarget"]
