"""The mathematics: one file per operation, with a pure forward, a pure backward, and the Function that joins them."""
