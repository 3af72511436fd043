"""The local target: the whole service on this machine out of wheels, under a supervisor.

Knows no other target, and no container engine.
"""

from pipeline.targets.local.target import LocalTarget

__all__ = ["LocalTarget"]
