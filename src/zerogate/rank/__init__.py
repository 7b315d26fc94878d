"""What runs inside every rank: torch, accelerate, the workload, the standard library and records."""
