"""Models, one file each: `LAYOUT`, `Params`, `build(spec, n_outputs, params)`; (B, *spec.shape) -> logits (B, K).

A model with published weights has the parameter `pretrained`, a function `source(params)`, and a fourth argument
`weights` of `build` (see `encoders.pretrained`). Networks have `get_classifier` and `group_matcher` like timm's (see
`_heads`).
"""
