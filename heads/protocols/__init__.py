"""Who may see which rows: one file a protocol, and the tasks that they build."""
