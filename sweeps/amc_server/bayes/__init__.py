"""The Bayesian search of the embedded server: what it is told of runs, its surrogate, its suggestions."""
