"""From IQ samples to model input: the definition in torch and the compiled path on the CPU."""
