"""Models, one file each: `LAYOUT`, `Params`, and `build(spec, n_outputs, params)`, (B, *spec.shape) -> logits (B, K)."""
