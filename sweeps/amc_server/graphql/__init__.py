"""W&B's GraphQL API."""
