"""The pod of a Job beside the service: on the service's image, restricted, with a script of the standard library.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["COMPONENT_LABEL", "DNS", "Json", "labels_of", "pod_of"]

COMPONENT_LABEL = "app.kubernetes.io/component"
Json = dict[str, Any]
# A way out to names, wherever they are: a node's own DNS cache is not a pod that a selector could name.
DNS: Json = {"ports": [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]}


def labels_of(name: str) -> dict[str, str]:
    """Return the labels of what is called `name`, and is a component of its own."""
    return {
        "app.kubernetes.io/name": name,
        COMPONENT_LABEL: name,
        "app.kubernetes.io/part-of": "slipway",
        "app.kubernetes.io/managed-by": "slipway",
    }


def pod_of(name: str, image: str, script: Sequence[str], volumes: Mapping[str, Json]) -> Json:
    """Return the spec of a pod that runs `script`, a file and its arguments, by the Python of `image`.

    `volumes` are what is mounted, by the folder.
    """
    named = {folder: folder.strip("/").replace("/", "-") for folder in volumes}
    container = {
        "name": name,
        "image": image,
        "command": ["python", "-I", "-S", *script],
        "resources": {"requests": {"cpu": "50m", "memory": "32Mi"}, "limits": {"cpu": "250m", "memory": "96Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": [{"name": named[folder], "mountPath": folder, "readOnly": True} for folder in volumes],
    }
    return {
        "restartPolicy": "Never",
        "serviceAccountName": "backend",  # what can pull the service's image can pull this one: it is the same
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 15,  # longer than a request that is under way may take
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "runAsGroup": 10001,
            "fsGroup": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [{"name": named[folder], **volume} for folder, volume in volumes.items()],
    }
