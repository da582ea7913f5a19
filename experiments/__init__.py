"""Questions with the figure they should give, and the one they gave."""
