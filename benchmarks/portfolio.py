"""Placeholder."""
from dataclasses import dataclass
from jaxtyping import Float, Int64
from torch import Tensor

@dataclass(frozen=True, kw_only=True)
class Answers:
    val: Float[Tensor, "v c"]
    test: Float[Tensor, "n c"]
    seconds: float

@dataclass(frozen=True, kw_only=True)
class Task:
    dataset: str
    shots: int
    seed: int
    val_labels: Int64[Tensor, " v"]
    test_labels: Int64[Tensor, " n"]
    answers: dict[str, Answers]

def show(tasks): print(len(tasks))
