"""Name -> frozen encoder: global features, patch tokens, texts. Only here is open_clip imported."""
