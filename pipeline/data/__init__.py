"""The data of an environment: its backups, whether one is young enough, the stories of a backup and of a drill.

Knows targets by their protocol. What a deploy asks of backups is here; nothing here knows a deploy.
"""
