"""How near hand-derived gradients are to the true ones, and autograd's."""
