"""Cards, CPU and memory of this machine, read without torch and without a CUDA context."""
