"""HTTP: what every framework shares, and the one framework of this service."""
