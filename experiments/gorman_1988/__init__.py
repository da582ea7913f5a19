"""Sonar and Ionosphere, as in 1988 and 1989."""
