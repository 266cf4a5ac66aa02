"""The contract between a method and everything else.

A method is one value, `METHOD`, made of pure functions over named tensors. It never sees the
query's labels, a seed, a grid, a device or a file: the trainer draws batches, the selection walks
the grids, the protocols say who may see which rows.

    stages == ()   training-free: prepare -> terms -> combine
    stages != ()   prepare -> (loss, gradient, update) x steps, stage by stage -> terms -> combine

Everything below `prepare` runs under `torch.func.vmap` over tasks s (own data) and grid points g
(shared data): no boolean-mask indexing, unique, nonzero, `.item()`, no random draws, no `if` on a
tensor. Hyper-parameters inside `loss`, `start`, `leave`, `update`, `terms` and `combine` are 0-d
tensors; inside `prepare` they are floats.

The parts, each on what stands before it: rows, settings, stages, method.
"""

from featcache.keys import TextKind
from heads.contract.method import (
    SHOTS_WITH_VIEWS,
    SUPPORT_AND_QUERY,
    AnyMethod,
    Method,
    Need,
    Role,
    Scout,
    Watched,
    shots_with_views,
    support_and_query,
)
from heads.contract.rows import (
    Batch,
    Kind,
    LazyRows,
    Rows,
    TaskView,
    Tensors,
    find_kind,
    gather,
    of_texts,
)
from heads.contract.settings import (
    Grid,
    Nothing,
    Real,
    WithText,
    evenly,
    hyper_values,
    number,
    with_static,
    with_values,
)
from heads.contract.stages import (
    Loss,
    Objective,
    Sampler,
    Sizes,
    Stage,
    Update,
    cross_entropy_of,
    last_logits,
    one_stage,
    stateless,
)

__all__ = [
    "SHOTS_WITH_VIEWS",
    "SUPPORT_AND_QUERY",
    "AnyMethod",
    "Batch",
    "Grid",
    "Kind",
    "LazyRows",
    "Loss",
    "Method",
    "Need",
    "Nothing",
    "Objective",
    "Real",
    "Role",
    "Rows",
    "Sampler",
    "Scout",
    "Sizes",
    "Stage",
    "TaskView",
    "Tensors",
    "TextKind",
    "Update",
    "Watched",
    "WithText",
    "cross_entropy_of",
    "evenly",
    "find_kind",
    "gather",
    "hyper_values",
    "last_logits",
    "number",
    "of_texts",
    "one_stage",
    "shots_with_views",
    "stateless",
    "support_and_query",
    "with_static",
    "with_values",
]
