"""Which run an agent gets, which runs stop, and what the search proposes."""
