"""Whether this process is alive, and whether it should get traffic."""
