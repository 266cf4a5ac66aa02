"""Templates and descriptions, encoded into a text bank."""
