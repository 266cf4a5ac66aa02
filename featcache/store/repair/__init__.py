"""Finding damage and taking it out; encoding again what was lost is the pipeline's business."""
