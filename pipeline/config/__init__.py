"""What a user sets: pyproject.toml's tables, `.env`, secrets and policies, checked.

Knows no engine, no registry and no release.
"""
