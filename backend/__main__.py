"""`python -m backend`: serve."""

from __future__ import annotations

import gc
import os
import sys
import tempfile

__all__ = ["main"]

CANNOT_LISTEN = 1


def main() -> int:
    """Serve with the settings of the environment.

    Return the exit code: 0 after an orderly exit, 1 when it cannot listen, 2 for bad settings.
    """
    # Until it serves (`backend.server`): imports leave nothing to collect, and looking takes 11-15 % of the start.
    gc.disable()
    from backend.settings import BAD_SETTINGS, SettingsError, load_settings

    try:
        settings = load_settings()
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return BAD_SETTINGS
    if settings.backend_workers > 1:
        # prometheus_client reads this when it is imported; the supervisor of the workers removes the folder.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix="metrics-")
    # redis-py imports the SDK's metrics wherever it finds them, and uses them nowhere: 0.1 s of each start.
    sys.modules["opentelemetry.sdk.metrics"] = None  # type: ignore[assignment]
    from backend.server import CannotListen, listen, run
    from backend.workers import supervise

    del sys.modules["opentelemetry.sdk.metrics"]
    try:
        listeners = listen(settings)
    except CannotListen as error:
        sys.stderr.write(f"{error}\n")
        return CANNOT_LISTEN
    if settings.backend_workers > 1:
        gc.enable()
        return supervise(settings, listeners)
    try:
        run(settings, listeners)
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return BAD_SETTINGS
    return 0


if __name__ == "__main__":
    sys.exit(main())
