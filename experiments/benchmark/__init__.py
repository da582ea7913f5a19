"""Speed, memory and accuracy of `torchnn.MLP` against the other ways to the same gradients."""
