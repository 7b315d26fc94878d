"""What runs inside a rank. Imports torch, accelerate, the workload and ``protocol``."""
