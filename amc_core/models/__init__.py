"""Networks with one head for the modulation and one for the SNR."""
