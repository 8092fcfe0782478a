"""Guardrail 5: input counted at the gate, output limited, history trimmed and summarised."""
