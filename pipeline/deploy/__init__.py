"""The story of a deploy, the proof around it, and the evidence that it leaves.

Knows targets by their protocol alone.
"""
