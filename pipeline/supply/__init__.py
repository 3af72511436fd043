"""The supply chain of a release: what is in its images, who vouches for them, and whether that holds.

A thin layer over syft (what is in an image), pip-audit and grype (what is known against it), and cosign (who signed
it). Knows nothing of targets and deploys.
"""
