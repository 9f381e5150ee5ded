"""What happened inside runs."""
