"""zerogate: a regression suite for sharded training, as a pytest plugin."""

__version__ = "0.1.0"
