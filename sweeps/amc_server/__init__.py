"""An embedded server that speaks the W&B sweep protocol with the unmodified wandb client."""
