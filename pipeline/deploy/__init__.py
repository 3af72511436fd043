"""The story of a deploy, the proof around it, and the evidence that it leaves.

Targets are known by their protocol alone.
"""
