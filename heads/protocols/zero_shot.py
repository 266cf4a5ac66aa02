"""Zero-shot: class texts alone answer the queries; no shots, no selection, one repetition."""

import numpy as np

from heads.protocols.plan import Plan, Request, Run
from heads.selection.settings import configure


def plan(request: Request) -> Plan:
    """Plan an evaluation of a method that reads no image but the queries.

    Raises:
        UnknownNameError: If the method or a setting is unknown.
    """
    method = request.resolve()
    none = np.zeros(0, dtype=np.int64)
    return Plan(
        run=Run(
            method=method,
            settings=configure(method, request.settings),
            features=request.features,
            protocol="zero_shot",
            selection="none",
            shots=0,
            seeds=(0,),
        ),
        episodes=lambda builder: [builder.build(none, none, seed=0, shots=0)],
        splits=request.splits,
        learned_rows=((none, None),),
    )
