"""Templates and descriptions, and their encoding into a text bank."""
