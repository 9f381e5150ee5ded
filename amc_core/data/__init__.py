"""The data file, and which of its frames a trial uses."""
