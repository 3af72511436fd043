"""The compose target: docker-compose.yml on one host, rolled one container at a time.

Knows no other target, and no cluster.
"""

from pipeline.targets.compose.target import ComposeTarget

__all__ = ["ComposeTarget"]
