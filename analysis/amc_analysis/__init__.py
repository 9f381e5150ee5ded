"""Read a sweep, rank its runs by peak, find the causes of their ends, and plan the next sweep."""
