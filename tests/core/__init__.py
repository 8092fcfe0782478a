"""The guardrails by themselves: properties, contracts and races, without a web framework."""
