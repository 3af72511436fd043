"""The compose target: docker-compose.yml on one host, rolled out one container at a time.

It depends on no other target and on no cluster.
"""

from pipeline.targets.compose.target import ComposeTarget

__all__ = ["ComposeTarget"]
