"""Synthetic frames of the 24 modulations."""
