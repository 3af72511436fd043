"""The code that two or more targets share: rolling, rehearsal, diagnosis, containers, data.

It depends on none of the targets.
"""
