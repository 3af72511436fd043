"""The SQL that makes the roles and gives them their rights: idempotent, without a lock that anybody waits for."""

from __future__ import annotations

from backend.rights.names import Names
from backend.rights.passwords import verifier

__all__ = ["identifier", "literal", "password_statement", "retirement", "rights", "roles"]

LOCK = 0x7269_6768_7473  # `rights` in ASCII: two at once would change the same rows of the catalog
READS, WRITES = "SELECT", "SELECT, INSERT, UPDATE, DELETE"

ROLE = """
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {literal}) THEN
        CREATE ROLE {name} {kind};
    ELSIF EXISTS (SELECT FROM pg_roles WHERE rolname = {literal}
            AND (rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls)) THEN
        RAISE EXCEPTION 'role % may do too much: NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS',
            {literal};
    END IF;
END $$
"""
MEMBER = """
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_auth_members WHERE roleid = {group}::regrole AND member = {member}::regrole) THEN
        GRANT {group_name} TO {member_name};
    END IF;
END $$
"""
# Databases that began with PostgreSQL 14 or older let everybody make tables in `public`, which is the superuser's:
# their owner could as everybody only. It keeps that right, and gets it back where an earlier version took it.
PUBLIC_MAKES_NOTHING = """
DO $$ BEGIN
    IF EXISTS (SELECT FROM pg_namespace, aclexplode(nspacl) AS given
            WHERE nspname = 'public' AND given.grantee = 0 AND given.privilege_type = 'CREATE') THEN
        REVOKE CREATE ON SCHEMA public FROM PUBLIC;
    END IF;
    IF NOT has_schema_privilege({owner}, 'public', 'CREATE') THEN
        GRANT CREATE ON SCHEMA public TO {owner_name};
    END IF;
END $$
"""
# Only what lacks a right is touched: a change of a table's rights makes every session plan anew. What others own
# (an extension's views, made by a superuser) is left as it is.
OBJECTS = """
DO $$
DECLARE one record;
BEGIN
    FOR one IN SELECT nspname FROM pg_namespace
        WHERE (nspowner = {owner}::regrole OR nspname = 'public') AND nspname !~ '^pg_'
        AND NOT (has_schema_privilege({app}, oid, 'USAGE') AND has_schema_privilege({read}, oid, 'USAGE'))
    LOOP
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO {app_name}, {read_name}', one.nspname);
    END LOOP;
    FOR one IN SELECT oid::regclass AS name, relkind FROM pg_class
        WHERE relowner = {owner}::regrole AND relnamespace <> 'pg_toast'::regnamespace AND relpersistence <> 't'
        AND CASE WHEN relkind IN ('r', 'p', 'v', 'm', 'f') THEN NOT (
                has_table_privilege({app}, oid, 'SELECT') AND has_table_privilege({app}, oid, 'INSERT')
                AND has_table_privilege({app}, oid, 'UPDATE') AND has_table_privilege({app}, oid, 'DELETE')
                AND has_table_privilege({read}, oid, 'SELECT'))
            WHEN relkind = 'S' THEN NOT (
                has_sequence_privilege({app}, oid, 'USAGE') AND has_sequence_privilege({app}, oid, 'SELECT')
                AND has_sequence_privilege({app}, oid, 'UPDATE') AND has_sequence_privilege({read}, oid, 'SELECT'))
            ELSE false END
    LOOP
        EXECUTE format(CASE one.relkind WHEN 'S' THEN 'GRANT USAGE, SELECT, UPDATE ON SEQUENCE %s TO {app_name}'
            ELSE 'GRANT {writes} ON TABLE %s TO {app_name}' END, one.name);
        EXECUTE format(CASE one.relkind WHEN 'S' THEN 'GRANT SELECT ON SEQUENCE %s TO {read_name}'
            ELSE 'GRANT SELECT ON TABLE %s TO {read_name}' END, one.name);
    END LOOP;
    FOR one IN SELECT oid::regprocedure AS name FROM pg_proc
        WHERE proowner = {owner}::regrole AND NOT has_function_privilege({app}, oid, 'EXECUTE')
    LOOP
        EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO {app_name}', one.name);
    END LOOP;
END $$
"""
# Where there is one already, what runs may log in with it.
IF_NONE_YET = """
DO $$ BEGIN
    IF (SELECT rolpassword IS NULL FROM pg_authid WHERE rolname = {literal}) THEN
        {statement};
    END IF;
END $$
"""
# A second login of the owner, which earlier versions made with the password that the service has.
RETIRE = """
DO $$ BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = {literal})
        AND NOT EXISTS (SELECT FROM pg_stat_activity WHERE usename = {literal}) THEN
        ALTER ROLE {name} PASSWORD NULL;
    END IF;
END $$
"""


def roles(names: Names) -> list[str]:
    """Return the statements that make the roles of `names` beside the owner, which must exist.

    They are for a superuser, or a role with CREATEROLE and, for `pg_monitor`, with its admin option.
    """
    kinds = {
        names.app: "NOLOGIN",
        names.read: "NOLOGIN",
        names.monitor: "LOGIN",
        **dict.fromkeys(names.logins, "LOGIN"),
    }
    made = [ROLE.format(literal=literal(name), name=identifier(name), kind=kind) for name, kind in kinds.items()]
    members = [*((names.app, login) for login in names.logins), ("pg_monitor", names.monitor)]
    for group, member in members:
        quoted = {"group": _regrole(group), "member": _regrole(member)}
        made.append(MEMBER.format(**quoted, group_name=identifier(group), member_name=identifier(member)))
    # Of the role, so that no session begins with another one, and it survives a restore.
    made += [f"ALTER ROLE {identifier(login)} SET search_path = public" for login in names.logins]
    return [_lock(), *(statement.strip() for statement in made)]


def rights(names: Names, database: str) -> list[str]:
    """Return the statements that give the roles of `names` their rights in `database`, to be run in it.

    They are for a superuser, or for the owner. They are the same for a database that was just restored.
    """
    owner, app, read = map(identifier, (names.owner, names.app, names.read))
    quoted = {"owner": _regrole(names.owner), "app": literal(names.app), "read": literal(names.read)}
    # Within strings that `format` reads: a quote and a percent sign of a name must survive both.
    inside = {f"{key}_name": name.replace("'", "''").replace("%", "%%") for key, name in (("app", app), ("read", read))}
    future = f"ALTER DEFAULT PRIVILEGES FOR ROLE {owner} GRANT"
    return [
        _lock(),
        f"GRANT CONNECT ON DATABASE {identifier(database)} TO {app}, {read}, {identifier(names.monitor)}",
        f"REVOKE TEMPORARY ON DATABASE {identifier(database)} FROM PUBLIC",
        PUBLIC_MAKES_NOTHING.format(owner=literal(names.owner), owner_name=owner).strip(),
        # What the owner makes from now on, so that no migration needs a GRANT.
        f"{future} USAGE ON SCHEMAS TO {app}, {read}",
        f"{future} {WRITES} ON TABLES TO {app}",
        f"{future} {READS} ON TABLES TO {read}",
        f"{future} USAGE, SELECT, UPDATE ON SEQUENCES TO {app}",
        f"{future} {READS} ON SEQUENCES TO {read}",
        f"{future} EXECUTE ON ROUTINES TO {app}",
        OBJECTS.format(**quoted, **inside, writes=WRITES).strip(),
    ]


def password_statement(login: str, password: str | None, *, only_if_none: bool = False) -> str:
    """Return the statement that sets the password of `login`; with `only_if_none`, it keeps one that is there.

    It has the verifier of the password; without one, nobody can log in. Only a superuser may look whether there is one.
    """
    value = "NULL" if password is None else literal(verifier(password))
    statement = f"ALTER ROLE {identifier(login)} PASSWORD {value}"
    return IF_NONE_YET.format(literal=literal(login), statement=statement).strip() if only_if_none else statement


def retirement(login: str) -> str:
    """Return the statement that takes the password of `login`, where it is there and nobody is logged in as it."""
    return RETIRE.format(literal=literal(login), name=identifier(login)).strip()


def identifier(name: str) -> str:
    """Return `name` as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return `text` as SQL writes a string."""
    return "'" + text.replace("'", "''") + "'"


def _regrole(name: str) -> str:
    return literal(identifier(name))


def _lock() -> str:
    return f"DO $$ BEGIN PERFORM pg_advisory_xact_lock({LOCK}); END $$"  # a SELECT would print a row
