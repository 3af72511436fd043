"""The images of a release: built, pushed, pinned, copied and promoted.

Knows no target and no verdict.
"""
