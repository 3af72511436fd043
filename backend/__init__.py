"""The service that is shipped. What it is about is in `domain.py`."""
