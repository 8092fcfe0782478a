"""The service. `python -m app` serves it; `chat.py` tells the story of one request."""
