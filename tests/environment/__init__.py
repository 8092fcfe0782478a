"""How the service reads its environment, and what it says of it, started as its owner starts it."""
