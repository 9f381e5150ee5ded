"""Which W&B server a command talks to."""
