"""Guardrail 1: every request logged and measured, and somebody told when it goes wrong."""
