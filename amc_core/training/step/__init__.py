"""From a batch of frames to its loss and its counts, as one graph where torch compiles it."""
