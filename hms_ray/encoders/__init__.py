"""Pretrained networks: access to published weights, and the speech encoders that features and models share.

Models train the encoders; features use them unchanged.
"""
