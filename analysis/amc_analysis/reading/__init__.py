"""Reading runs: W&B's public API, the bulk endpoint, caches and files."""
