"""What the searched parameters did between runs."""
