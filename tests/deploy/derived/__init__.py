"""What a team made of the template: a secret that is required, a wiring of its own, a task in the background."""
