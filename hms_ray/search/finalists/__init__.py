"""Which configurations get all folds, and the training of the folds that they lack."""
