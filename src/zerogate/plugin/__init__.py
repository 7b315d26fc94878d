"""The pytest plugin: everything that imports pytest, but for the claims in ``suite``."""
