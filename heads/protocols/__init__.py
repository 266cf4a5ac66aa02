"""Who may see which rows."""
