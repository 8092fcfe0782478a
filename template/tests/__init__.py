"""The guardrails at work: everything here talks to the service over HTTP, on a real socket."""
