"""The integrity rules: what must not be concluded from a sweep, and why."""
