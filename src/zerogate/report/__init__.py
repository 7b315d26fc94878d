"""What a session found, for people (the terminal) and for programs (results.json)."""
