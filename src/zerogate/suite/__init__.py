"""The claims: what the regression suite asserts of every cell."""
