"""Questions, each with the number it should give and the number it gave."""
