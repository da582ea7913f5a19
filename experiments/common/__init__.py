"""Code that the experiments share: the command, the result files, the style of the plots, and training."""
