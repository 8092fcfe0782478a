"""What the guardrails cost, beside a service without any; `make bench`."""
