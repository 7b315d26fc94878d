"""What ranks run in: packages laid over, compiled ops, variables, and what identifies all of it."""
