"""A client of OCI registries: references, credentials, manifests, and the proofs that are attached to an image.

Knows HTTP and nothing of the pipeline.
"""
