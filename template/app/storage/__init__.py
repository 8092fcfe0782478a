"""Where limits, budgets, claims and summaries are kept: the port, and the store of this service."""
