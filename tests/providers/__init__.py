"""The adapters and the transport, against the vendors' types and against broken servers."""
