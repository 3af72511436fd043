"""The story of a restore: a backup brought back beside what serves, tried there, swapped in, proved, or undone.

Uses the lock, the healing and the proof of a deploy. Nothing imports it but the command.
"""
