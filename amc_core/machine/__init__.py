"""Memory and its limits on this machine, and which code and device compute a run."""
