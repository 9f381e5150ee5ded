"""What this machine gives a process: memory, its limits, the code and the device that run."""
