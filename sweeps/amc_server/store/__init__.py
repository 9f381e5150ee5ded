"""The data folder: one SQLite database, and the bytes of files beside it."""
