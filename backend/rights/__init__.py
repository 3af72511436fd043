"""Least rights in PostgreSQL: who owns the service's tables, who serves from them, who looks on."""
