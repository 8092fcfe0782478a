"""The model vendors: the port, what its adapters share, and one file for each chosen vendor."""
