"""The pytest plugin: everything that imports pytest, except the claims in ``suite``."""
