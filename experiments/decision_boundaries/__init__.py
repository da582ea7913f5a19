"""How a sigmoid network bends its decision boundary while it learns."""
