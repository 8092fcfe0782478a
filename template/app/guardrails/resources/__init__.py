"""Guardrail 4: a rate limit per caller, a daily cost cap, and no request run twice."""
