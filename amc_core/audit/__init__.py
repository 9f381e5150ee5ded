"""Checks of a data file, and the best accuracy that is possible."""
