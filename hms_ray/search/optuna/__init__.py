"""What touches Optuna: the journal, the samplers and the warm start."""
