"""Find and remove damage; the pipeline encodes lost rows again."""
