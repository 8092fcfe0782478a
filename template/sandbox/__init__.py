"""Local stand-ins of the vendors' HTTP APIs, on real sockets and with scripted faults.

`python -m sandbox` runs the service against them without a key; the tests drive them directly.
Nothing here is imported by the service.
"""
