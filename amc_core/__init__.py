"""What one trial is made of: RadioML frames in, a classifier of modulation and SNR out."""

__version__ = "0.1.0"
