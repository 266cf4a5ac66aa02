"""TIMO-S: TIMO whose choice and number of texts are searched.

    m_p    = v_c . t_p                                                     (1)
    t~_c   = normalise(sum_p softmax_p(gamma m_p / |m_c|) t_p)             (2)
    logits = alpha x T~^T + x W^T + b                                      (3)

    x [n d] rows, unit            t [m d] texts, unit, each of one class c
    v [c d] class means of the shots, unit        m_c  the matches (1) of the class's texts
    T~ [c d] guided texts
    W [c d], b [c]                the discriminant of `gda`, (2) and (3) there, of the shots in all
                                  views and of the first ceil(rho p) of the p rows m_p t_p of each
                                  class, best match first, above p from the first again

Everything else is as in `timo`.

Reference: Li et al., Text and Image Are Mutually Beneficial: Enhancing Training-Free Few-Shot
Classification with CLIP, AAAI 2025, arXiv:2412.11375.
Source: released code @75eca4c; the paper's body was not read.
Differs from the paper: as timo does. The released code chooses gamma first, by the accuracy of
x T~^T alone, and then alpha and the number of texts; here all three are chosen together. The number
is a share of the class's texts, because classes may have different numbers, and the grid takes
tenths of 2p; the released one takes ten numbers from 1 to 2p, the same at p = 1 and 5.
"""

from dataclasses import dataclass

from heads.contract.method import Method, shots_with_views
from heads.contract.rows import TaskView, Tensors
from heads.contract.settings import Grid, WithText, number
from heads.guided_discriminant import ALPHAS, Guided, combine, learn, linear, terms

GAMMAS = tuple(range(5, 105, 5))
"""Released values of gamma."""
SHARES = (0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0)


@dataclass(frozen=True, kw_only=True)
class Hyper(Guided):
    rho: float = number(1.0, above=0.0, high=2.0, prepare=True)
    """Texts that are samples, as a share of those of their class; above 1 the best count twice."""


def prepare(task: TaskView, config: WithText, hyper: Hyper) -> tuple[Tensors, Tensors]:
    """Take the texts of best match."""
    return {}, learn(task, config, hyper.rho, method=METHOD.name)


METHOD = Method(
    name="timo-s",
    summary="TIMO whose choice and number of texts are searched on validation.",
    source="released code: Li et al. 2025, arXiv:2412.11375",
    needs=shots_with_views,
    prepare=prepare,
    terms=terms,
    combine=combine,
    train_grid=Grid({"rho": SHARES}),
    post_grid=Grid({"gamma": GAMMAS, "alpha": ALPHAS}),
    linear=linear,
)
