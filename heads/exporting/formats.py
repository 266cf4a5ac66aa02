"""The files of each format, and how they are run to check them.

onnx     model.onnx                   for ONNX Runtime and the like; opset as torch writes it
torch    head.py, head.safetensors    the traced operations as Python source, and their tensors
numpy    predict.py, head.npz         W, b, classes: linear heads only

Nothing is pickled: docs/decisions/exports-without-pickle.md.
"""

import io
import json
import logging
import runpy
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from featcache.errors import HeadError
from heads.exporting.program import LOGITS, PROBABILITIES, Program
from heads.exporting.source import FILE, TENSORS, source_of, tensors_of

Outputs = tuple[Float[np.ndarray, "n c"], Float[np.ndarray, "n c"]]
"""Logits and probabilities."""
Run = Callable[[Float[np.ndarray, "n ..."]], Outputs]
"""Rows or pixels -> outputs of the written files."""

ONNX, ARRAYS, PREDICT = "model.onnx", "head.npz", "predict.py"
IN_ONE_FILE = 2**30
"""Bytes of tensors up to which an ONNX file holds them; protobuf allows 2 GiB."""
PREDICT_SOURCE = '''"""A linear head in NumPy: logits = x W^T + b for rows x of length 1.

    from predict import predict
    logits, probabilities, names = predict(features)        # features [n d], of any length

Nothing in head.npz is pickled; README.md says how images become features.
"""

from pathlib import Path

import numpy as np

with np.load(Path(__file__).with_name("head.npz"), allow_pickle=False) as file:
    HEAD = dict(file)


def predict(features):
    """Return logits [n c], probabilities [n c] and the names of the best classes [n]."""
    features = np.asarray(features, dtype=np.float32)
    lengths = np.linalg.norm(features, axis=-1, keepdims=True)
    logits = features / np.maximum(lengths, 1e-12) @ HEAD["weight"].T + HEAD["bias"]
    scaled = logits / HEAD["temperature"]
    exponentials = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    probabilities = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return logits, probabilities, HEAD["classes"][logits.argmax(axis=-1)]
'''


def load_export_libraries() -> Any:
    """Import onnxruntime, and what torch writes ONNX files with.

    Raises:
        HeadError: If one is not installed.
    """
    try:
        for name in ("onnx", "onnxscript"):
            import_module(name)
        return import_module("onnxruntime")
    except ImportError as missing:
        raise HeadError(
            f"ONNX files are written with onnx and onnxscript and checked with onnxruntime; "
            f"{missing.name} is not installed. Install them with: pip install 'featcache[export]'"
        ) from missing


def write_onnx(program: Program, facts: Mapping[str, Any], folder: Path) -> None:
    """Write model.onnx, with the facts of the head among its metadata."""
    load_export_libraries()
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    try:
        logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            written = torch.onnx.export(
                program.exported,
                input_names=[program.input],
                output_names=[LOGITS, PROBABILITIES],
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # torch.onnx has no single error for operations it lacks
        raise HeadError(
            f"torch cannot write this head as ONNX: {' '.join(str(error).split())[:300]}."
        ) from error
    finally:
        logger.setLevel(level)
    assert written is not None
    for name, value in facts.items():
        text = value if isinstance(value, str) else json.dumps(value)
        written.model.metadata_props[name] = text
    size = sum(t.nbytes for t in program.exported.state_dict.values())
    written.save(folder / ONNX, external_data=size > IN_ONE_FILE)


def run_onnx(folder: Path) -> Run:
    """Open model.onnx in ONNX Runtime on the CPU."""
    runtime = load_export_libraries()
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    session = runtime.InferenceSession(
        str(folder / ONNX), options, providers=["CPUExecutionProvider"]
    )
    (only,) = session.get_inputs()

    def run(rows: np.ndarray) -> Outputs:
        logits, probabilities = session.run([LOGITS, PROBABILITIES], {only.name: rows})
        return logits, probabilities

    return run


def write_torch(program: Program, facts: Mapping[str, Any], folder: Path) -> None:
    """Write head.py and head.safetensors."""
    from safetensors.torch import save

    (folder / FILE).write_bytes(source_of(program).encode())
    (folder / TENSORS).write_bytes(save(tensors_of(program)))


def run_torch(folder: Path) -> Run:
    """Run head.py, with nothing but torch and safetensors."""
    module = runpy.run_path(str(folder / FILE))["Head"]()

    def run(rows: np.ndarray) -> Outputs:
        with torch.no_grad():
            logits, probabilities = module(torch.from_numpy(rows))
        return logits.numpy(), probabilities.numpy()

    return run


def write_numpy(program: Program, facts: Mapping[str, Any], folder: Path) -> None:
    """Write head.npz and predict.py."""
    assert program.linear is not None
    buffer = io.BytesIO()
    np.savez(
        buffer,
        weight=program.linear.weight.numpy(),
        bias=program.linear.bias.numpy(),
        classes=np.array(facts["classes"], dtype=np.str_),
        temperature=np.float32(facts["temperature"]),
        preprocessing=np.str_(facts["preprocessing"]),
    )
    (folder / ARRAYS).write_bytes(buffer.getvalue())
    (folder / PREDICT).write_bytes(PREDICT_SOURCE.encode())


def run_numpy(folder: Path) -> Run:
    """Run predict.py."""
    predict = runpy.run_path(str(folder / PREDICT))["predict"]

    def run(rows: np.ndarray) -> Outputs:
        logits, probabilities, _ = predict(rows)
        return logits, probabilities

    return run


Write = Callable[[Program, Mapping[str, Any], Path], None]
WRITERS: Mapping[str, tuple[Write, Callable[[Path], Run]]] = {
    "onnx": (write_onnx, run_onnx),
    "torch": (write_torch, run_torch),
    "numpy": (write_numpy, run_numpy),
}
"""Format -> what writes its files into a folder, and what runs them."""
