"""Accounts: who they are, how they sign in, and for how long. They stay when a team replaces the domain."""
