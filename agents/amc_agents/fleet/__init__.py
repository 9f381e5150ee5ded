"""amc-sweep agent: several `wandb agent` processes, watched and restarted."""
