"""The script that Alembic runs: one transaction per migration, or none for one that must stand alone.

`backend.migrations.runner` takes the lock and sets the timeouts of the connection that it puts into `attributes`.
"""

from __future__ import annotations

from alembic import context

from backend.migrations.alone import stand_alone

attributes = context.config.attributes
for revision in context.script.walk_revisions():
    stand_alone(revision, attributes["seconds"])
context.configure(
    connection=attributes["connection"], transaction_per_migration=True, on_version_apply=attributes["on_version_apply"]
)
with context.begin_transaction():
    context.run_migrations()
