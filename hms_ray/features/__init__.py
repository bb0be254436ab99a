"""Features, one file each: `Params`, `spec(params)`, and `compute(recordings, params)` on batches, on any device.

Where a feature computes with published weights, `source(params)` says where they are, and `compute` takes what gives
them as a third argument (see `encoders.pretrained`).
"""
