"""amc-data: make, check, show and split data files."""
