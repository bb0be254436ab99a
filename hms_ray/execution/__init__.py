"""Where folds are trained: in reused Tune actors, or in a Ray Train worker group. Ray holds no state of a study."""
