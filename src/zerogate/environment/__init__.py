"""The environment of ranks: overlays of packages, compiled ops, variables, and its fingerprint."""
