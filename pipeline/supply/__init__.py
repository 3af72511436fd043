"""The supply chain of a release: what is in its images, who vouches for them, and whether that holds.

Thin over syft (what is in an image), pip-audit and grype (what is known against it), cosign (who signed it). Knows no
target and no deploy.
"""
