"""What the controller can see of the machine: cards, CPU, disk. No torch, no CUDA context."""
