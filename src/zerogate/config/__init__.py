"""What the user wrote: the project's folders, the options, the strategy files."""
