"""The kubernetes target: an overlay of k8s/ in one namespace of any cluster.

Kubernetes rolls the pods, this package watches. It knows no other target.
"""

from pipeline.targets.kubernetes.target import KubernetesTarget

__all__ = ["KubernetesTarget"]
