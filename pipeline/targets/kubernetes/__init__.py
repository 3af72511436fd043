"""The kubernetes target: a kustomize overlay on any cluster, rolled by Kubernetes, watched and undone from here."""
