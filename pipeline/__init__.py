"""The deploy pipeline: what the nox sessions run."""
