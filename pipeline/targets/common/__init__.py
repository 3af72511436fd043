"""What two targets or more need: rolling, rehearsal, diagnosis, containers, data.

Knows no target of its own.
"""
