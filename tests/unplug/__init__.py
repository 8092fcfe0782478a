"""The proof that the proof can fail: without its guardrail's wiring, each item turns to no."""
