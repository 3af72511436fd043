"""The local target: the whole service on this machine, from PyPI wheels, under a supervisor.

It depends on no other target and on no container engine.
"""

from pipeline.targets.local.target import LocalTarget

__all__ = ["LocalTarget"]
