"""Plain mathematics on tensors: no method, no task, no cache."""
