"""Reports on a session, for people (the terminal) and for programs (results.json)."""
