"""An embedded server that speaks the W&B sweep protocol to the unmodified wandb client."""
