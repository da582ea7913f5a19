"""All flights in one batch."""
