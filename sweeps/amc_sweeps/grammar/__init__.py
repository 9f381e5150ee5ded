"""W&B's sweep grammar: YAML, distributions, Hyperband."""
