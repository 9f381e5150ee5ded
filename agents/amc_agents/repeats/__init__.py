"""Training a configuration again: which runs, and how they are queued."""
