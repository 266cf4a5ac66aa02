"""How little a row looks like any class, from its logits; larger is stranger.

    max-logit   - max_k z_k
    energy      - T log sum_k exp(z_k / T)

References: Hendrycks et al., Scaling Out-of-Distribution Detection for Real-World Settings, ICML
2022 (max-logit). Liu et al., Energy-based Out-of-distribution Detection, NeurIPS 2020 (energy).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from featcache.errors import UnknownNameError
from heads.ops.score_names import MEASURES


def novelty(
    logits: Float[Tensor, "n c"], measure: str, temperature: float = 1.0
) -> Float[Tensor, " n"]:
    """Return how strange every row is.

    Args:
        logits: Of a classifier, not normalised: the energy of log-probabilities is 0 everywhere.
        measure: One of `MEASURES`.
        temperature: T of the energy, above 0.

    Raises:
        UnknownNameError: If there is no such measure.

    Example:
        >>> z = torch.tensor([[2.0, 0.0], [0.0, 0.0]])
        >>> novelty(z, "max-logit")
        tensor([-2., -0.])
        >>> novelty(z, "energy")
        tensor([-2.1269, -0.6931])
    """
    if measure not in MEASURES:
        raise UnknownNameError("measure", measure, MEASURES)
    if measure == "max-logit":
        return -logits.amax(dim=-1)
    return -temperature * torch.logsumexp(logits / temperature, dim=-1)


def auroc(known: Float[Tensor, " n"], novel: Float[Tensor, " q"]) -> float:
    """Return the probability that a novel row is stranger than a known one; ties count half.

    Args:
        known: Measure of rows of the classes, at least one.
        novel: Measure of other rows, at least one.

    Returns:
        In [0, 1]; 0.5 is chance.

    Example:
        >>> auroc(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 2.0]))
        0.875
    """
    ordered = known.double().sort().values
    of = novel.double().contiguous()
    below = torch.searchsorted(ordered, of, right=False)
    up_to = torch.searchsorted(ordered, of, right=True)
    return float((below + up_to).double().mean()) / (2 * len(ordered))
