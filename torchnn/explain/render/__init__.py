"""A trace for people: in the terminal, and as a page."""
