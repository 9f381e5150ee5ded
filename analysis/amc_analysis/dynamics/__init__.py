"""The dynamics inside runs."""
