"""What many processes cost, from measured constants, and examples of starting them."""
