"""Configuration by the user: the project's folders, the options, the strategy files."""
