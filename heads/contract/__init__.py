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

The parts, each on what stands before it: rows, linear, settings, stages, method.
"""
