"""What the targets share of a move to another major: the SQL for both servers, and the room that a copy needs."""

from __future__ import annotations

import logging

__all__ = ["COMMIT_SECONDS", "FACTS", "PLAIN", "READ_ONLY", "ROOM", "WRITABLE", "close_sql", "log_ended"]

log = logging.getLogger(__name__)

ROOM = 1.5  # of the database's size: its copy, with the log that writing it makes
HEARD_SECONDS = 0.5  # until each session has heard of a changed setting
COMMIT_SECONDS = 15.0  # more than the service gives a statement
PLAIN = ("--tuples-only", "--no-align")  # for psql
FACTS = (
    "SELECT json_build_object('server', current_setting('server_version'), 'data', current_setting('data_directory'),"
    " 'bytes', pg_database_size(current_database()),"
    " 'others', (SELECT coalesce(json_agg(datname ORDER BY datname), '[]') FROM pg_database"
    " WHERE NOT datistemplate AND datname NOT IN ('postgres', current_database())));"
)
READ_ONLY = "ALTER SYSTEM SET default_transaction_read_only = on;\nSELECT pg_reload_conf();"
WRITABLE = "ALTER SYSTEM RESET default_transaction_read_only;\nSELECT pg_reload_conf();"
# A setting of the server: unlike one of the database or of a role, a backup does not carry it to the new server. Who
# began before all had heard may still write; what does not end is ended, and the last line says how many that were.
CLOSE = """\
SELECT pg_sleep({heard});
DO $$
DECLARE since timestamptz := clock_timestamp(); ended int := 0;
BEGIN
  LOOP
    PERFORM pg_stat_clear_snapshot();
    EXIT WHEN NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'client backend'
                          AND pid <> pg_backend_pid() AND xact_start < since);
    IF clock_timestamp() > since + make_interval(secs => {seconds}) THEN
      SELECT count(pg_terminate_backend(pid)) INTO ended FROM pg_stat_activity
        WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND xact_start < since;
      EXIT;
    END IF;
    PERFORM pg_sleep(0.2);
  END LOOP;
  PERFORM set_config('upgrade.ended', ended::text, false);
END $$;
SELECT current_setting('upgrade.ended');
"""


def close_sql(seconds: float) -> str:
    """Return the SQL that lets nobody write any more, and gives what has begun so many `seconds` to commit.

    The last line of its output is the number of sessions that were ended then.
    """
    return f"{READ_ONLY}\n" + CLOSE.format(heard=HEARD_SECONDS, seconds=seconds)


def log_ended(said: str, seconds: float) -> None:
    """Warn where what `close_sql` printed, `said`, names sessions that were ended after so many `seconds`."""
    ended = said.rsplit(maxsplit=1)[-1]
    if ended != "0":
        log.warning(f"{ended} sessions had a transaction open for {seconds:.0f} s: they were ended")
