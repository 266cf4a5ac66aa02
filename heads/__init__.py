"""Train and evaluate small heads on cached features."""
