"""What is left of loss and gradient where a sigmoid saturates."""
