"""A rendered service, started as its owner starts it, and OpenAI's own SDK as its caller."""
