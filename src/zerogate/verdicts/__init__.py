"""Measurements judged: values in, verdicts out. Pure, but for strict readers of files."""
