"""The ``zerogate`` command: one module for each subcommand."""
