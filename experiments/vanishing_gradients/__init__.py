"""How far back gradients reach, by activation and initial weights."""
