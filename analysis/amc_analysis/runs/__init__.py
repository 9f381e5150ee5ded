"""Runs with their whole histories, and what is known of a sweep before any statistics."""
