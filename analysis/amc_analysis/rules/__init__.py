"""The integrity rules: conclusions that a sweep does not support."""
