"""Items: one small resource, to copy from."""
