"""Models, one file each: `LAYOUT`, `Params`, `build(spec, n_outputs, params)`; (B, *spec.shape) -> logits (B, K)."""
