"""The database migrations, and the command that runs them."""
