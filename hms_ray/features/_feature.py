"""What every feature takes."""

from collections.abc import Mapping

import torch

Recordings = Mapping[str, torch.Tensor]
"""A batch of windows by kind: (B, channels, steps) float32, NaN where there is a gap."""
