"""decode -> views -> encode -> write: four stages and the run that joins them."""
