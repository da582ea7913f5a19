"""What the experiments share: the command, the files they write, the look of their pictures, and training."""
