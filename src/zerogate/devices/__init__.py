"""The machine as the controller sees it: cards, CPU, memory. No torch and no CUDA context."""
