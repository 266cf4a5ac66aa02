"""The section of a head's file that keeps its calibration: names and tensors, checked when read."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from heads.certainty.calibration import NAMES, Calibration, Part
from heads.contract.rows import Tensors
from heads.fitted import Fitted

PARTS, ROWS = 1_000, 10_000_000
"""Largest number of parts, and of rows in one."""


def packed(calibration: Calibration, name: str) -> tuple[dict[str, Any], Tensors]:
    """Return the description of a calibration and its tensors; `name` is that of the section."""
    described: list[dict[str, Any]] = []
    tensors: Tensors = {}
    for at, part in enumerate(calibration.parts):
        tensors |= {f"{name}/{at}/{score}": values for score, values in part.scores.items()}
        one: dict[str, Any] = {"scores": list(part.scores), "temperature": part.temperature}
        if part.fitted is not None:
            for kind in ("params", "fixed"):
                own: Tensors = getattr(part.fitted, kind)
                one[kind] = list(own)
                tensors |= {f"{name}/{at}/{kind}/{n}": t for n, t in own.items()}
        described.append(one)
    return {"parts": described}, tensors


def unpacked(
    section: Mapping[str, Any], tensors: Tensors, name: str, fitted: Fitted
) -> Calibration:
    """Read a calibration.

    Args:
        section: Its description, from anybody.
        tensors: All tensors of the file.
        name: Name of the section.
        fitted: The head that it belongs to.

    Raises:
        ValueError: If it is none; or KeyError, TypeError, OverflowError.
    """
    parts = section["parts"]
    if not isinstance(parts, list) or not 1 <= len(parts) <= PARTS:
        raise ValueError(f"its calibration should have 1 to {PARTS} parts")
    read = tuple(_part(one, tensors, f"{name}/{at}", fitted) for at, one in enumerate(parts))
    if len({part.fitted is None for part in read}) > 1 or (
        read[0].fitted is None and len(read) > 1
    ):
        raise ValueError("its calibration should have one part, or a head in every part")
    return Calibration(parts=read)


def _part(one: Mapping[str, Any], tensors: Tensors, place: str, fitted: Fitted) -> Part:
    temperature = float(one["temperature"])
    if not 0 < temperature < float("inf"):
        raise ValueError("a temperature of its calibration is out of range")
    if not set(NAMES) <= set(one["scores"]):  # those of later versions are left out
        raise ValueError(f"its calibration should have the scores {', '.join(NAMES)}")
    scores = {name: tensor_of(tensors, f"{place}/{name}") for name in NAMES}
    for name, values in scores.items():
        if values.dtype != torch.float64 or values.dim() != 1 or not 1 <= len(values) <= ROWS:
            raise ValueError(f"the scores {name} of its calibration should be float64 [m]")
        if not bool(values.isfinite().all()) or bool((values.diff() < 0).any()):
            raise ValueError(f"the scores {name} of its calibration should be finite and sorted")
    if len({len(values) for values in scores.values()}) > 1:
        raise ValueError("the scores of its calibration should be of the same rows")
    own = None
    if "params" in one:
        params, fixed = (
            {n: tensor_of(tensors, f"{place}/{kind}/{n}") for n in one[kind]}
            for kind in ("params", "fixed")
        )
        own = replace(fitted, params=params, fixed=fixed)
    return Part(scores=scores, temperature=temperature, fitted=own)


def tensor_of(tensors: Tensors, name: str) -> Tensor:
    """Return a tensor in aligned memory.

    Raises:
        ValueError: If there is none of this name.
    """
    if name not in tensors:
        raise ValueError(f"it lacks the tensor {name}")
    return tensors[name].clone()
