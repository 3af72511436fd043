"""Backups of the database: made, kept, checked and restored beside it, by `python -m backend.backups`."""
