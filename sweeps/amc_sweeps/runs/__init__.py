"""Records of runs: states, causes, bands, ranking, and the file that carries them."""
