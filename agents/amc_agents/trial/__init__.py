"""amc-train: one trial, from flags to an exit code."""
