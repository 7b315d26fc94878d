"""What a session found, for people (terminal) and for programs (results.json)."""
