"""All frameworks, one behaviour: the same script of requests, the same answers and log lines."""
