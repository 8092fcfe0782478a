"""The pre-deployment checklist: twelve items, one test each, over HTTP against the service.

A test tells its evidence through `evidence`; three or more open items mean "not ready".
"""
