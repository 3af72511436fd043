"""An S3 of a test's own: SeaweedFS in one process."""

from __future__ import annotations

import contextlib
import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.system.leash import held
from tests.tools import need

__all__ = ["ADMIN", "S3", "SECRET", "serving"]

KEY, ADMIN, SECRET = "KEYOFTESTS", "KEYOFADMIN", "a-secret-of-tests"
BUCKET = "backups"


@dataclass(frozen=True)
class S3:
    """Its address, and the folder of the bucket's one test."""

    endpoint: str
    folder: str

    def environ(self, *, secret: str = SECRET, bucket: str = BUCKET, endpoint: str | None = None) -> dict[str, str]:
        """The settings that lead to it."""
        return {
            "BACKUP_ADDRESS": f"s3://{bucket}/{self.folder}?endpoint={endpoint or self.endpoint}&region=us-east-1",
            "BACKUP_ADDRESS_SECRET": f"{KEY}:{secret}",
        }

    def rclone(self) -> dict[str, str]:
        """The variables of rclone for it, as a person would have them."""
        given = {"type": "s3", "provider": "Other", "endpoint": self.endpoint, "region": "us-east-1",
                 "access_key_id": ADMIN, "secret_access_key": SECRET}  # fmt: skip
        return {f"RCLONE_CONFIG_S3_{name.upper()}": value for name, value in given.items()}


@contextlib.contextmanager
def serving(folder: Path, *, bind: str = "127.0.0.1") -> Iterator[str]:
    """Run it with its data in `folder`, at the address `bind` of this host; yield its own address."""
    ports = dict(zip(("s3", "master", "volume", "filer", "s3.grpc", "master.grpc", "volume.grpc", "filer.grpc"),
                     _free_ports(8), strict=True))  # fmt: skip
    acts = ["Read", "Write", "List", "Tagging"]  # and makes no bucket
    rights = {"identities": [
        {"name": "keeper", "credentials": [{"accessKey": KEY, "secretKey": SECRET}], "actions": acts},
        {"name": "admin", "credentials": [{"accessKey": ADMIN, "secretKey": SECRET}], "actions": ["Admin", *acts]},
    ]}  # fmt: skip
    (folder / "s3.json").write_text(json.dumps(rights))
    command = [need("weed"), "server", f"-dir={folder}", "-ip=127.0.0.1", f"-ip.bind={bind}", "-filer", "-s3",
               f"-s3.config={folder}/s3.json", "-volume.max=50", "-master.volumeSizeLimitMB=30", "-s3.port.iceberg=0",
               "-master.telemetry=false", f"-filer.localSocket={folder}/filer.sock",
               *(f"-{name.replace('.grpc', '.port.grpc') if 'grpc' in name else f'{name}.port'}={port}"
                 for name, port in ports.items())]  # fmt: skip
    endpoint = f"http://127.0.0.1:{ports['s3']}"
    with held(command, log=folder / "log"):
        deadline = time.monotonic() + 90
        while not _answers(endpoint):
            if time.monotonic() > deadline:
                raise AssertionError((folder / "log").read_text()[-3000:])
            time.sleep(0.2)
        yield endpoint


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _answers(endpoint: str) -> bool:
    try:
        urllib.request.urlopen(endpoint, timeout=2).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True
