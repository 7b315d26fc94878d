"""The regression suite's fixtures come from the zerogate plugin, which is installed."""
