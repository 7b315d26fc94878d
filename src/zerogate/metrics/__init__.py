"""The metric table, and the records of a cell aggregated into its measurement. Pure."""
