"""XOR and mirror symmetry, as in 1986."""
