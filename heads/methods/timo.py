"""TIMO: a discriminant that learns from shots and texts, beside texts that the shots weigh.

    m_p    = v_c . t_p                                                     (1)
    t~_c   = normalise(sum_p softmax_p(gamma m_p / |m_c|) t_p)             (2)
    logits = alpha x T~^T + x W^T + b                                      (3)

    x [n d] rows, unit            t [m d] texts, unit, each of one class c
    v [c d] class means of the shots, unit        m_c  the matches (1) of the class's texts
    T~ [c d] guided texts
    W [c d], b [c]                the discriminant of `gda`, (2) and (3) there, of the shots in all
                                  views and, as further rows of their classes, of all m_p t_p

The rows m_p t_p are not unit; they are about 0.3 long. Neither summand of (3) has a logit scale.
The texts give scatter, so one shot a class is enough. With one text a class gamma changes nothing.

Reference: Li et al., Text and Image Are Mutually Beneficial: Enhancing Training-Free Few-Shot
Classification with CLIP, AAAI 2025, arXiv:2412.11375.
Source: released code @75eca4c; the paper's body was not read.
Differs from the paper: solved in float64, where the released code takes a pseudo-inverse in
float32. gamma is 50; the released code sets it by the name of the data set: ImageNet 1, Flowers
100, all others 50. Classes keep all their texts, where the released code cuts them to the smallest
number. The texts of a class without shots are no rows of the discriminant, where the released code
gives NaN. alpha where nothing is searched is ours.
"""

from heads.contract.method import Method, shots_with_views
from heads.contract.rows import TaskView, Tensors
from heads.contract.settings import Grid, WithText
from heads.guided_discriminant import ALPHAS, Guided, combine, learn, linear, terms


def prepare(task: TaskView, config: WithText, hyper: Guided) -> tuple[Tensors, Tensors]:
    """Take every text once."""
    return {}, learn(task, config, 1.0, method=METHOD.name)


METHOD = Method(
    name="timo",
    summary="Discriminant of shots and texts together, beside texts weighed by the shots.",
    source="released code: Li et al. 2025, arXiv:2412.11375",
    needs=shots_with_views,
    prepare=prepare,
    terms=terms,
    combine=combine,
    post_grid=Grid({"alpha": ALPHAS}),
    linear=linear,
)
