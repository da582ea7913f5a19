"""Modules: parameters, initialisation and repr around `torchnn.functional`."""
