"""A traced program as a Python file that needs torch and safetensors alone."""

import re
from copy import deepcopy

from torch import Tensor, fx
from torch.export.graph_signature import InputKind

from featcache.errors import HeadError
from featcache.wording import Argument
from heads.exporting.program import Program

FILE, TENSORS = "head.py", "head.safetensors"
_HEADER = '''"""A head as plain torch: {input} {shape} in float32 -> logits and probabilities [n c].

    model = Head()                      # reads head.safetensors beside this file
    logits, probabilities = model({input})

The operations were traced from the head, one a line; the tensors are named as in the head. Nothing
is pickled. README.md says how images become the input.
"""

from math import inf, nan  # noqa: F401
from pathlib import Path

import torch
from safetensors.torch import load_file


class Head(torch.nn.Module):
    """The operations below with their tensors as buffers, which `.to(device)` moves."""

    def __init__(self, file=Path(__file__).with_name("head.safetensors")):
        super().__init__()
        for name, tensor in load_file(file).items():
            self.register_buffer(name, tensor)

    def forward(self, rows):
        return answer(rows=rows, **dict(self.named_buffers()))


'''
KNOWN = ("torch", "inf", "nan", "device")
"""Names that the file defines, or that are replaced in it."""
_FREED = re.compile(r";  [\w, =]+ = None$", re.MULTILINE)
"""What torch adds to a line to free memory."""
_DEVICE = re.compile(r"device\(type='cpu'\)")


def source_of(program: Program) -> str:
    """Return the file: a class, and the traced operations as a function `answer`.

    Raises:
        HeadError: If an operation needs more than torch.
    """
    graph = _graph(program)
    for node in graph.nodes:
        if node.op == "placeholder":
            node.target = node.name = _names(program).get(node.name, "rows")
    code = graph.python_code("self")
    body = _FREED.sub("", code.src).strip().replace("def forward(self, ", "def answer(*, ", 1)
    missing = [n for n in ("self", *code.globals) if n not in KNOWN and _reads(body, n)]
    if missing:
        raise HeadError(
            f"The operations of this head need {', '.join(missing)}, which a file of plain torch "
            f"lacks. Use ",
            Argument("to", "onnx"),
            ".",
        )
    body = _DEVICE.sub("rows.device", body)
    sizes = ", ".join(map(str, program.shape))
    return _HEADER.format(input=program.input, shape=f"[n {sizes}]".replace(",", "")) + body + "\n"


def tensors_of(program: Program) -> dict[str, Tensor]:
    """Return the tensors that the operations read, by name; others are left out."""
    stored = {**program.exported.state_dict, **program.exported.constants}
    read = {node.name for node in _graph(program).nodes if node.op == "placeholder"}
    targets = _targets(program)
    return {
        plain: stored[targets[name]].detach().clone().contiguous()
        for name, plain in _names(program).items()
        if name in read
    }


def _reads(code: str, name: str) -> bool:
    return re.search(rf"\b{name}\b", code) is not None


def _targets(program: Program) -> dict[str, str]:
    """Return the placeholders of tensors, and the tensors' names in the program."""
    return {
        spec.arg.name: str(spec.target)
        for spec in program.exported.graph_signature.input_specs
        if spec.kind is not InputKind.USER_INPUT
    }


def _names(program: Program) -> dict[str, str]:
    """Return the placeholders of tensors, and names for them that Python allows."""
    return {name: re.sub(r"\W", "_", target) for name, target in _targets(program).items()}


def _graph(program: Program) -> fx.Graph:
    """Return the operations that the outputs depend on, and the inputs that they read."""
    graph: fx.Graph = deepcopy(program.exported.graph_module).graph
    graph.eliminate_dead_code()
    user = set(program.exported.graph_signature.user_inputs)
    for node in reversed(list(graph.nodes)):
        is_unread = node.op == "placeholder" and not node.users and node.name not in user
        if is_unread or "_assert_tensor_metadata" in str(node.target):
            graph.erase_node(node)
    return graph
