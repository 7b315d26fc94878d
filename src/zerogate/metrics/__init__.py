"""The metric table, and the aggregation of a cell's records into its measurement. Pure functions."""
