"""What `nox -s status -- ENV --watch` shows: look after look at what runs, what it answers, and what is wrong.

Knows what a replica is and where metrics come from; what runs is told to it, so that it knows no target.
"""
