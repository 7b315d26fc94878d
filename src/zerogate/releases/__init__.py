"""Releases of a package, each measured in an overlay of its own: the sweep and the bisection."""
