"""A comparison as text, CSV, Markdown or JSON; nothing is computed here."""
