"""The migrations of the database, and the command that runs them."""
