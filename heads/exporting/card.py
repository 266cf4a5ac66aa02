"""The model card beside exported files: README.md for people, head.json for programs."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from featcache.backbones.licences import licence_named
from featcache.counts import counted
from featcache.escapes import shown
from featcache.imaging.windows import in_words
from heads.contract.settings import hyper_values
from heads.exporting.checking import Comparison
from heads.exporting.program import FEATURES, LOGITS, PROBABILITIES, Program
from heads.head import Head
from heads.results.record import Result
from heads.results.render.cells import protocol_text

CARD, FACTS = "README.md", "head.json"
SHOWN_METRICS = {"top1": "top-1", "balanced_accuracy": "balanced accuracy", "macro_f1": "macro F1"}
_LOADING = {
    ("onnx", False): """import numpy as np, onnxruntime
session = onnxruntime.InferenceSession("model.onnx")
features = np.zeros((1, {size}), dtype=np.float32)      # one row an image, of any length
logits, probabilities = session.run(["logits", "probabilities"], {{"features": features}})""",
    ("onnx", True): """import numpy as np, onnxruntime
session = onnxruntime.InferenceSession("model.onnx")
pixels = np.zeros((1, {size}), dtype=np.float32)        # after the preprocessing below
logits, probabilities = session.run(["logits", "probabilities"], {{"pixels": pixels}})""",
    ("torch", False): """import torch
from head import Head                                   # head.py of this folder
logits, probabilities = Head()(torch.zeros(1, {size}))""",
    ("torch", True): """import torch
from head import Head                                   # head.py of this folder
with torch.no_grad():
    logits, probabilities = Head()(torch.zeros(1, {size}))      # pixels after preprocessing""",
    ("numpy", False): """import numpy as np
from predict import predict                             # predict.py of this folder
logits, probabilities, names = predict(np.zeros((1, {size})))""",
}
"""(format, whether the tower is in it) -> how the files are loaded."""


def facts_of(head: Head, program: Program, format_: str) -> dict[str, Any]:
    """Return what a program needs to know of the files, as plain JSON."""
    fitted, key = head.fitted, head.key
    return {
        "method": head.method.name,
        "version": head.method.version,
        "source": head.method.source,
        "settings": {**vars(fitted.config), **hyper_values(fitted.hyper)},
        "format": format_,
        "input": {"name": program.input, "shape": ["n", *program.shape], "dtype": "float32"},
        "outputs": [LOGITS, PROBABILITIES],
        "classes": list(head.classes),
        "temperature": head.temperature,
        "linear": program.linear is not None,
        "holds_training_features": [] if program.linear is not None else list(head.holds),
        "dataset": head.dataset,
        "backbone": head.backbone,
        "weights": "" if key is None else key.weights,
        "licence_of_weights": licence_of(head),
        "preprocessing": "" if key is None else key.preprocessing,
    }


def licence_of(head: Head) -> str:
    """Name the licence of the weights that the features come from."""
    if not head.backbone:
        return "unknown: the head was trained on plain arrays"
    return licence_named(head.backbone, head.about.get("weights") or None)


def facts_file(facts: Mapping[str, Any], compared: Sequence[Comparison]) -> bytes:
    """Write the facts and the comparisons as JSON."""
    values = {**facts, "compared": [one.to_json() for one in compared]}
    return (json.dumps(values, indent=1, ensure_ascii=True) + "\n").encode()


def card(
    head: Head,
    facts: Mapping[str, Any],
    compared: Sequence[Comparison],
    notes: Sequence[str],
    result: Result | None,
) -> str:
    """Write the model card as Markdown.

    Args:
        head: The head.
        facts: From `facts_of`.
        compared: How the written files were checked.
        notes: What a user of the files must know.
        result: The record of the run that kept the head; None without one.
    """
    with_tower = facts["input"]["name"] != FEATURES
    size = ", ".join(map(str, facts["input"]["shape"][1:]))
    loading = _LOADING[facts["format"], with_tower].format(size=size)
    title = f"{head.method.name} on {head.dataset or 'arrays'}"
    sections = [
        f"# {_plain(title)}\n\n{_plain(head.method.summary)} "
        f"{counted(len(head.classes), 'class', 'classes')}.",
        f"```python\n{loading}\n```",
        _list("Input and output", _interface(facts, size)),
        _list("Training", _training(head, facts)),
        _list("Figures", _figures(result)),
        _list("Checked when it was written", [_told(one) for one in compared]),
        _list("To know", notes),
        _list("Classes, by label", [f"{i}: {_plain(c)}" for i, c in enumerate(head.classes)]),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _interface(facts: Mapping[str, Any], size: str) -> list[str]:
    name = facts["input"]["name"]
    of = "features of any length" if name == FEATURES else "pixels in RGB, preprocessed"
    heat = facts["temperature"]
    scaled = LOGITS if heat == 1 else f"{LOGITS} / {heat:g}"
    return [
        f"`{name}`: float32 [n, {size}], {of}.",
        f"`{LOGITS}`: float32 [n, {len(facts['classes'])}]; the class with the largest is the "
        f"answer.",
        f"`{PROBABILITIES}`: softmax({scaled}).",
        f"Preprocessing: {_plain(in_words(facts['preprocessing']) or 'not recorded')}.",
    ]


def _training(head: Head, facts: Mapping[str, Any]) -> list[str]:
    about = dict(head.about)
    if "protocol" in about:
        about["protocol"] = protocol_text(str(about["protocol"]))
    drawn = [f"{key} {about[key]}" for key in ("protocol", "shots", "seed", "selection", "run")
             if key in about]  # fmt: skip
    settings = ", ".join(f"{name}={value}" for name, value in facts["settings"].items())
    return [
        f"Method: {_plain(head.method.name)}, version {head.method.version}; "
        f"{_plain(head.method.source)}.",
        f"Settings: {_plain(settings) or 'none'}.",
        f"Data: {_plain(head.dataset or 'plain arrays')}; {_plain(', '.join(drawn)) or 'fit'}.",
        f"Features: {_plain(head.backbone or 'plain arrays')}, weights "
        f"{_plain(facts['weights'] or 'not recorded')}.",
        f"Licence of the weights: {_plain(facts['licence_of_weights'])}.",
    ]


def _figures(result: Result | None) -> list[str]:
    if result is None:
        return ["None: the head came without the record of a run."]
    of = "of this head"
    if result.repetitions > 1:
        of = f"mean of {result.repetitions} repetitions of which this head is one"
    told = []
    for name, words in SHOWN_METRICS.items():
        metric = result.metrics.get(name)
        if metric is not None:
            ci = "" if metric.ci95 is None else f" ± {100 * metric.ci95:.1f}"
            told.append(f"{words} {100 * metric.mean:.1f}{ci} %")
    lines = [
        f"On the {_plain(result.split)} split of {_plain(result.dataset)}, {of}: {', '.join(told)}."
    ]
    if result.zero_shot_top1 is not None:
        lines.append(f"Zero-shot, on the same queries: top-1 {100 * result.zero_shot_top1:.1f} %.")
    if result.oracle:
        lines.append("Chosen on the queries: not a fair figure.")
    if result.leaks:
        lines.append("The corpus holds queries: not a fair figure.")
    return lines


def _told(one: Comparison) -> str:
    return (
        f"{counted(one.rows, 'row')} against {one.against}: largest difference of a logit "
        f"{one.difference:.1e} of the largest logit; {one.tolerance:.0e} is allowed."
    )


def _list(title: str, lines: Sequence[str]) -> str:
    return "" if not lines else f"## {title}\n\n" + "\n".join(f"- {line}" for line in lines)


def _plain(text: str) -> str:
    """Escape what would control a terminal or mark up a page."""
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#" else c for c in shown(text))
