"""The training loop and everything it decides by."""
