"""The kubernetes target: a kustomize overlay on any cluster. Kubernetes rolls; this watches, undoes and records."""

from pipeline.targets.kubernetes.target import KubernetesTarget

__all__ = ["KubernetesTarget"]
