"""The whole network and its loss in one Function."""
