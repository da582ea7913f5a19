"""The mathematics: one file per derived operation, each a pure forward, a pure backward and the Function of both."""
