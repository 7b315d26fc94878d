"""Verdicts on measurements: values in, verdicts out. Pure functions, except strict readers of files."""
