"""Models, one file each: `LAYOUT`, `Params`, `build(spec, n_outputs, params)`; (B, *spec.shape) -> logits (B, K).

Where weights are published, `Params` has `pretrained`, `source(params)` says where they are, and `build` takes them as
a fourth argument (see `encoders.pretrained`). Networks have `get_classifier` and `group_matcher` as timm's have (see
`_heads`).
"""
