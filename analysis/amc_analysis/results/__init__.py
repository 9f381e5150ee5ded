"""What an analysis holds: plain frozen dataclasses. Nothing is computed here that needs more than the runs."""
