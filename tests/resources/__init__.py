"""What the resources guardrail promises, over HTTP and on each store: races, outages, leavers."""
