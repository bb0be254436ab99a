"""Several images side by side as one: each region of the scalp stands beside itself.

The parts follow each other along T. Where a part is not as tall as the tallest, its regions (or, where it has none,
the whole of it) get empty rows around them. Strong public solutions put the supplied spectrogram beside those made
of the EEG: https://www.kaggle.com/code/cdeotte/efficientnetb2-starter-lb-0-57
"""

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from pydantic import Field, PlainSerializer, PlainValidator, field_validator

from hms_ray import registry
from hms_ray.core.params import Params as Strict
from hms_ray.core.specs import InputSpec
from hms_ray.features._bins import pad_bins
from hms_ray.features._feature import FeatureRef, Recordings

MOST = 4
DEFAULT = ({"name": "kaggle_spectrogram"}, {"name": "eeg_spectrogram"})


class _Name(Strict):
    """Which feature a part is."""

    name: str

    @field_validator("name")
    @classmethod
    def _exists(cls, name: str) -> str:
        known = [other for other in registry.names("features") if other != "panels"]
        if name not in known:
            raise ValueError(f"must be one of {', '.join(known)}")
        return name


def _part(value: Any) -> FeatureRef:
    """Check one part; faults below it keep their path."""
    if isinstance(value, FeatureRef):
        return value
    if not isinstance(value, Mapping):
        raise ValueError("must be a mapping: the name of a feature and its parameters")
    name = _Name.model_validate({key: value[key] for key in ("name",) if key in value}).name
    kind = registry.load("features", name).Params
    return FeatureRef(name, kind.model_validate({key: value[key] for key in value if key != "name"}))


class Params(Strict):
    """Which images stand side by side."""

    parts: tuple[Annotated[FeatureRef, PlainValidator(_part), PlainSerializer(FeatureRef.dump)], ...] = Field(
        DEFAULT,
        validate_default=True,
        description="2 to 4 image features with the same regions, left to right: each {name: ..., its parameters}",
    )

    @field_validator("parts")
    @classmethod
    def _fit(cls, parts: tuple[FeatureRef, ...]) -> tuple[FeatureRef, ...]:
        if not 2 <= len(parts) <= MOST:
            raise ValueError(f"must be 2 to {MOST} features")
        for part in parts:
            _check_pair(parts[0], part)
        return parts


def spec(params: Params) -> InputSpec:
    """Return the shape of the joined image; rate_hz is that of the first part, the others' T may have another."""
    parts = [part.spec for part in params.parts]
    channels, blocks = parts[0].shape[0], _blocks(parts[0])
    widths = tuple(picture.stop - picture.start for part in parts for picture in part.pictures)
    kinds = tuple(dict.fromkeys(kind for part in parts for kind in part.kinds))
    shape = (channels, blocks * _rows(parts), sum(widths))
    folded, symmetric = any(part.folded for part in parts), all(part.symmetric for part in parts)
    empty = tuple(value for part in parts for value in part.empty * (len(part.pictures) // len(part.empty)))
    return InputSpec("image", shape, parts[0].rate_hz, parts[0].panels, kinds, widths, folded, symmetric, empty=empty)


def compute(recordings: Recordings, params: Params) -> torch.Tensor:
    """Return images (B, C, F, T): those of the parts, each padded to the tallest, float32."""
    parts = [part.spec for part in params.parts]
    images = [part.compute(recordings) for part in params.parts]
    rows, blocks = _rows(parts), _blocks(parts[0])
    return torch.cat([_tall(image, rows, blocks, part) for image, part in zip(images, parts, strict=True)], -1)


def _tall(image: torch.Tensor, rows: int, blocks: int, part: InputSpec) -> torch.Tensor:
    """Return images (B, C, F, T) of a part with empty rows around each block, up to `rows` a block."""
    padded = pad_bins(image.unflatten(2, (blocks, -1)), rows).flatten(2, 3)
    return padded.where(~padded.isnan(), part.empty_values(image))


def _check_pair(first: FeatureRef, part: FeatureRef) -> None:
    """Raise ValueError unless a part can stand beside the first."""
    if part.spec.layout != "image" or (part.spec.panels and part.spec.panels.axis == "T"):
        raise ValueError(f"{part.name} is no image that others can stand beside")
    if (part.spec.panels, part.spec.shape[0]) != (first.spec.panels, first.spec.shape[0]):
        raise ValueError(
            f"{first.name} and {part.name} cannot stand side by side: the first has {_regions(first)},"
            f" the second has {_regions(part)}; both must have the same (`arrange` decides it, where a feature has it)"
        )


def _blocks(part: InputSpec) -> int:
    """Return how many blocks of rows an image has: one a region where regions lie along F."""
    return len(part.panels.names) if part.panels and part.panels.axis == "F" else 1


def _rows(parts: list[InputSpec]) -> int:
    """Return the rows of a block of the tallest part."""
    return max(part.shape[1] // _blocks(part) for part in parts)


def _regions(part: FeatureRef) -> str:
    """Word the regions and channels of a part."""
    panels = part.spec.panels
    regions = f"regions {' '.join(panels.names)} along {panels.axis}" if panels else "no regions"
    return f"{regions}, C = {part.spec.shape[0]}"
