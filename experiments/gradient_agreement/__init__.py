"""How close hand-derived gradients and autograd's are to the true ones."""
