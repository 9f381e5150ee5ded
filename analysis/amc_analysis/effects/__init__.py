"""Effects of the searched parameters on performance and failures."""
