"""The release board: the service that Slipway ships in its example."""
