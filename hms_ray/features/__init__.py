"""Features, one file each: `KIND` of recording, `Params`, `spec(params)`, and `compute(dataset, i, params)`."""
