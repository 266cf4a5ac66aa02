"""Train and evaluate small heads on cached features.

    head = heads.fit("cmm", featcache.open("pets", "ViT-B/16"), shots=16)
    result = heads.evaluate("cmm", cache, shots=16, seeds=3)
    head.save("pets.head");  heads.load("pets.head")
    for found in heads.predict(head, "new/"): print(found.id, found.name)

Nothing is imported before it is asked for.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from heads.api import compare as compare
    from heads.api import evaluate as evaluate
    from heads.api import fit as fit
    from heads.api import load as load
    from heads.api import predict as predict
    from heads.api import sweep as sweep
    from heads.estimator import Estimator as Estimator
    from heads.head import Head as Head

_PLACES = {
    **dict.fromkeys(("compare", "evaluate", "fit", "load", "predict", "sweep"), "heads.api"),
    "Estimator": "heads.estimator",
    "Head": "heads.head",
}

__all__ = ["Estimator", "Head", "compare", "evaluate", "fit", "load", "predict", "sweep"]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'heads' has no attribute '{name}'")
    import importlib

    value = getattr(importlib.import_module(_PLACES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
