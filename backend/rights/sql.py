"""`python -m backend.rights.sql` prints the SQL that makes the roles and gives them their rights, in a transaction.

One JSON object comes on standard input: {"login": the owner's, "database": its name}, and what of these is wanted:
"passwords" {login: password, or null}, "passwords_if_none" the same for those logins that have none yet, "retired"
[login]. It needs no package, no settings and no server. Passwords are printed as their verifiers.
"""

from __future__ import annotations

import json
import sys

from backend.rights.names import Names
from backend.rights.statements import password_statement, retirement, rights, roles

__all__ = ["main"]

BAD_USAGE = 2  # exit code


def main() -> int:
    """Print the statements. Return the exit code: 0 done, 2 bad usage."""
    try:
        given = json.load(sys.stdin)
        names = Names.of(given["login"])
        statements = roles(names)
        statements += [password_statement(*pair) for pair in given.get("passwords", {}).items()]
        statements += [
            password_statement(*pair, only_if_none=True) for pair in given.get("passwords_if_none", {}).items()
        ]
        statements += [retirement(login) for login in given.get("retired", ())]
        statements += rights(names, given["database"])
    except (KeyError, TypeError, AttributeError):
        sys.stderr.write('standard input: must be a JSON object with "login" and "database"\n')
        return BAD_USAGE
    except ValueError as error:  # of the JSON, a name or a password; no message has a value
        sys.stderr.write(f"standard input: {error}\n")
        return BAD_USAGE
    limits = "SET LOCAL client_min_messages = warning", "SET LOCAL lock_timeout = '10s'"
    whole = ["BEGIN", *limits, *statements, "COMMIT"]
    sys.stdout.write("".join(f"{statement};\n" for statement in whole))
    return 0


if __name__ == "__main__":
    sys.exit(main())
