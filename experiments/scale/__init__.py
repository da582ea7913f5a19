"""What many processes cost, by measurement and by a model, and examples of how to start them."""
