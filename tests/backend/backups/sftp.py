"""An SFTP server of a test's own."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import asyncssh

__all__ = ["SFTP", "serving"]

PASSWORD = "a-password-of-tests"


@dataclass(frozen=True)
class SFTP:
    """Its port, its host key, and a private key that it accepts."""

    port: int
    host_key: str
    private_key: str

    def environ(self, *, secret: str = PASSWORD, host_key: str | None = None) -> dict[str, str]:
        """The settings that lead to it."""
        key = quote(host_key or self.host_key)
        return {
            "BACKUP_ADDRESS": f"sftp://keeper@127.0.0.1:{self.port}/some/folder?host_key={key}",
            "BACKUP_ADDRESS_SECRET": secret,
        }


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[SFTP]:
    """Serve `folder` to one user, by password or key."""
    host, user = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))

    class _Server(asyncssh.SSHServer):
        def password_auth_supported(self) -> bool:
            return True

        def validate_password(self, username: str, password: str) -> bool:
            return (username, password) == ("keeper", PASSWORD)

    async with asyncssh.listen(
        "127.0.0.1", 0, server_host_keys=[host], server_factory=_Server,
        authorized_client_keys=asyncssh.import_authorized_keys(public(user)),
        sftp_factory=lambda channel: asyncssh.SFTPServer(channel, chroot=os.fsencode(folder)),
    ) as server:  # fmt: skip
        yield SFTP(server.get_port(), public(host), user.export_private_key().decode())


def public(key: asyncssh.SSHKey) -> str:
    """The public half of `key`, without a comment."""
    return " ".join(key.export_public_key().decode().split()[:2])
