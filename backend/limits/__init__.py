"""How much one client may ask: counted in the process, shared through Redis, said in headers."""
