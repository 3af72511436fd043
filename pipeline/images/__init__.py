"""The images of a release: built, pushed, pinned, copied and promoted.

Knows nothing of targets and verdicts.
"""
