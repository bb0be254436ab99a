"""Features, one file each: `Params`, `spec(params)`, and `compute(recordings, params)` on batches, on any device."""
