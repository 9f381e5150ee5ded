"""Checks of a data file, and the accuracy that is possible at all."""
