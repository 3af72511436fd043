"""The programs that do the work: docker, kubectl, kind, kustomize, and PostgreSQL, Valkey and Caddy out of wheels.

Knows nothing of releases and deploys.
"""
