"""Sessions: the launches that cells need, their order, and what measurements are compared with."""
