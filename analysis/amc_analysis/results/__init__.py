"""The results of an analysis: frozen dataclasses."""
