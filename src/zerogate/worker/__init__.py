"""Code that runs inside a rank. It imports torch, accelerate, the workload and ``protocol``."""
