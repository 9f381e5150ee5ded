"""Runs with their whole histories: outcomes, parameters, failure rates."""
