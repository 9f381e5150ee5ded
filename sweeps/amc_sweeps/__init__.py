"""What a sweep is: its file, its search grammar, its run states and causes. No torch, wandb or pandas."""
