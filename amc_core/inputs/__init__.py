"""From IQ samples to model input: the definition in torch, and the compiled path for the CPU."""
