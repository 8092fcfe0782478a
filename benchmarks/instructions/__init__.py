"""Bytecode instructions per request, and whether they are still those of the baseline."""
