"""Statements about a sweep, such as "max_lr=0.002 beats max_lr=0.001", and whether its runs support them."""
