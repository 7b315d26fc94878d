"""Which launches a cell needs, in which order, and what its measurement is compared with."""
