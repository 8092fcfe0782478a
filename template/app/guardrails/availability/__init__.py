"""Guardrail 3: a timeout on every external call, retries with backoff, another provider."""
