"""Ray-distributed hyperparameter search and honest, certified ensembling for EEG classification."""

__version__ = "0.1.0"
