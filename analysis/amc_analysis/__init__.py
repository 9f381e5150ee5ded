"""Read a sweep and say who really won, how each run ended and what to try next."""
