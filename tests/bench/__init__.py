"""The service's hot endpoints against a bare ASGI app: `python -m tests.bench`."""
