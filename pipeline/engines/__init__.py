"""The programs that do the work: docker, kubectl, kind, kustomize, and PostgreSQL, Valkey and Caddy out of wheels.

Knows no release, and nothing of a deploy.
"""
