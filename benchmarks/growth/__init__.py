"""How costs grow with what a service holds and is sent; `make bench-growth`."""
