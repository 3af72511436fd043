"""The script that Alembic runs: one transaction per migration, or none for one that must stand alone.

`backend.migrations.runner` takes the lock and sets the timeouts of the connection that it puts into `attributes`.
"""

from __future__ import annotations

from alembic import context

from backend.migrations.runner import stand_alone

for revision in context.script.walk_revisions():
    stand_alone(revision)
context.configure(
    connection=context.config.attributes["connection"],
    transaction_per_migration=True,
    on_version_apply=context.config.attributes["on_version_apply"],
)
with context.begin_transaction():
    context.run_migrations()
