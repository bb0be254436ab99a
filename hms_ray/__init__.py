"""Ray-distributed hyperparameter search and honest, certified ensembling for EEG and heart sounds."""

__version__ = "0.1.0"
