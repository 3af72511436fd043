"""The rotation of a secret: a story of steps, each of which may be killed and gone on with.

The rollouts in it are deploys like any other. Targets are known by their protocol alone.
"""
