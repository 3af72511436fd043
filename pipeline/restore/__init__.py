"""The stories of a restore and of a new major of PostgreSQL: made beside what serves, tried, swapped in, proved.

They use the lock, the healing and the proof of a deploy. Nothing imports them but the commands.
"""
