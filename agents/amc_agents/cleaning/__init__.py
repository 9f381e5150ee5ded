"""What can go from a machine: checkpoints of ended runs, copies in W&B's cache, leftovers of killed programs."""
