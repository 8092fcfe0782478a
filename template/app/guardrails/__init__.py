"""The five guardrails. They do not know one another; `chat.py` alone decides their order."""
