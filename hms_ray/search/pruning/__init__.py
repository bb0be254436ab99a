"""Which trials are stopped before they have trained all their folds."""
