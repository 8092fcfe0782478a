"""Guardrail 2: the service does not start when a variable is missing, a placeholder, or wrong."""
