"""Exported heads: the same logits without featcache, or a refusal that says why."""

import errno
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from featcache.errors import HeadError, UnknownNameError, UsageError
from heads import registry
from heads.exporting import formats, writing
from heads.exporting.checking import HEAD_TOLERANCE, example_rows
from heads.exporting.program import Program
from heads.exporting.writing import export
from heads.head import Head, fitted_head
from tests.heads.toy_tasks import fitted, make_task, rich_world
from tests.reliability.faults import Fault, failing, no_more_than
from tests.tiers import quick

FEATURES = rich_world()
D = 16
READ_ONLY = Fault(call="mkdir", error=errno.EROFS, where=".out.tmp-")


def head_of(name: str) -> Head:
    method = registry.get(name)
    made = fitted(method, make_task(FEATURES, method).view)
    return fitted_head(
        made,
        FEATURES.classes,
        D,
        key=FEATURES.key,
        dataset="toy",
        about={"shots": 6, "seed": 3},
    )


def answers_by_global_features(name: str) -> bool:
    method = registry.get(name)
    kinds = {need.kind for need in method.needs(method.config()) if need.role == "query"}
    return kinds == {"global"} and not method.transductive


EXPORTABLE = [name for name in registry.names() if answers_by_global_features(name)]
HOLDING = {"tip-adapter", "tip-adapter-f", "ape", "ape-t", "dac", "knn", "proker", "sus-x"}


def run_alone(folder: Path, code: str) -> list[Any]:
    """Run code beside exported files in a process that cannot import featcache."""
    block = "import sys; sys.modules.update(featcache=None, heads=None)\n"
    done = subprocess.run(
        [sys.executable, "-c", f"{block}import json\n{code}"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    answer: list[Any] = json.loads(done.stdout)
    return answer


def assert_same(head: Head, rows: torch.Tensor, outputs: Any) -> None:
    expected = head.logits(rows)
    logits, probabilities = (torch.from_numpy(np.asarray(out, dtype=np.float32)) for out in outputs)
    largest = max(1.0, float(expected.abs().max()))
    assert float((logits - expected).abs().max()) / largest <= HEAD_TOLERANCE
    assert torch.allclose(probabilities, head.probabilities(rows), atol=1e-4)


@pytest.mark.parametrize("name", quick(EXPORTABLE, 4))
def test_plain_torch_answers_as_the_head(name: str, tmp_path: Path) -> None:
    head = replace(head_of(name), temperature=2.5)
    written = export(head, "torch", tmp_path / "out")
    rows = example_rows(head, D)[::7]
    assert_same(head, rows, formats.run_torch(written.path)(rows.numpy()))
    assert written.linear == (head.fitted.linear() is not None)


@pytest.mark.parametrize("name", quick(EXPORTABLE, 1))
def test_onnx_answers_as_the_head(name: str, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")
    pytest.importorskip("onnxscript", reason="the extra `export` is not installed")
    head = replace(head_of(name), temperature=0.7)
    written = export(head, "onnx", tmp_path / "out")
    session = runtime.InferenceSession(str(written.path / "model.onnx"))
    (given,) = session.get_inputs()
    assert given.name == "features"
    assert [out.name for out in session.get_outputs()] == ["logits", "probabilities"]
    for rows in (example_rows(head, D)[::5], example_rows(head, D)[:1]):
        assert_same(head, rows, session.run(None, {"features": rows.numpy()}))
    told = session.get_modelmeta().custom_metadata_map
    assert json.loads(told["classes"]) == list(head.classes)
    assert told["method"] == name


@pytest.mark.long
def test_a_large_onnx_file_has_its_tensors_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")
    monkeypatch.setattr(formats, "IN_ONE_FILE", 0)
    head = head_of("tip-adapter")
    written = export(head, "onnx", tmp_path / "out")
    assert written.files == ("README.md", "head.json", "model.onnx", "model.onnx.data")
    moved = written.path.rename(tmp_path / "moved")
    rows = example_rows(head, D)[:9]
    assert_same(head, rows, formats.run_onnx(moved)(rows.numpy()))


LINEAR = [name for name in EXPORTABLE if name not in HOLDING]


@pytest.mark.parametrize("name", quick(LINEAR, 3))
def test_arrays_answer_for_linear_heads_alone(name: str, tmp_path: Path) -> None:
    head = head_of(name)
    if head.fitted.linear() is None:
        with pytest.raises(UsageError, match=r"not affine.*to='onnx'"):
            export(head, "numpy", tmp_path / "out")
        assert list(tmp_path.iterdir()) == []
        return
    written = export(head, "numpy", tmp_path / "out")
    rows = example_rows(head, D)[::7]
    assert_same(head, rows, formats.run_numpy(written.path)(rows.numpy()))


def test_files_answer_where_featcache_is_not_installed(tmp_path: Path) -> None:
    head = head_of("gda")
    rows = example_rows(head, D)[:4]
    export(head, "numpy", tmp_path / "arrays")
    export(head, "torch", tmp_path / "torch")
    listed = f"rows = {rows.tolist()}\n"
    *outputs, names = run_alone(
        tmp_path / "arrays",
        f"{listed}from predict import predict\n"
        "logits, p, names = predict(rows)\n"
        "print(json.dumps([logits.tolist(), p.tolist(), names.tolist()]))",
    )
    assert_same(head, rows, outputs)
    assert names == [head.classes[label] for label in head.predict(rows).tolist()]
    module = run_alone(
        tmp_path / "torch",
        f"{listed}import torch\nfrom head import Head\n"
        "print(json.dumps([out.tolist() for out in Head()(torch.tensor(rows))]))",
    )
    assert_same(head, rows, module)


@pytest.mark.parametrize("to", ["torch", "numpy"])
def test_a_folded_head_keeps_one_matrix_and_no_training_row(to: str, tmp_path: Path) -> None:
    head = head_of("gda")
    export(head, to, tmp_path / "out", strip=True)
    if to == "torch":
        stored = load_file(tmp_path / "out" / "head.safetensors")
        assert {tuple(t.shape) for t in stored.values()} == {(len(head.classes), D), (5,)}
    else:
        with np.load(tmp_path / "out" / "head.npz", allow_pickle=False) as arrays:
            assert arrays["weight"].shape == (len(head.classes), D)
            assert arrays["classes"].tolist() == list(head.classes)


@pytest.mark.parametrize("name", quick(sorted(HOLDING), 1))
def test_a_head_that_holds_training_features_says_so_and_is_not_stripped(
    name: str, tmp_path: Path
) -> None:
    head = head_of(name)
    written = export(head, "torch", tmp_path / "out")
    assert "hold features of training images" in " ".join(written.notes)
    assert "hold features of training images" in (written.path / "README.md").read_text()
    facts = json.loads((written.path / "head.json").read_text())
    assert facts["holds_training_features"] == list(head.holds) != []
    with pytest.raises(UsageError, match=f"{name} compares every row"):
        export(head, "torch", tmp_path / "stripped", strip=True)
    assert not (tmp_path / "stripped").exists()


def test_every_method_that_holds_training_features_is_known_here() -> None:
    assert {name for name in EXPORTABLE if registry.get(name).holds} == HOLDING


def test_methods_that_need_more_than_a_feature_vector_are_refused(tmp_path: Path) -> None:
    with pytest.raises(HeadError, match=r"lazsl reads crops\.lazsl of every image"):
        export(head_of("lazsl"), "torch", tmp_path / "out")
    with pytest.raises(HeadError, match="'transclip' answers all queries together"):
        export(head_of("transclip"), "torch", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_wrong_words_and_places_are_refused(tmp_path: Path) -> None:
    head = head_of("ridge")
    with pytest.raises(UnknownNameError, match="did you mean 'onnx'"):
        export(head, "onx", tmp_path / "out")
    with pytest.raises(UsageError, match="An image tower is no matrix"):
        export(head, "numpy", tmp_path / "out", with_backbone=True)
    (tmp_path / "taken").mkdir()
    with pytest.raises(UsageError, match="taken exists"):
        export(head, "numpy", tmp_path / "taken")
    imported = replace(head, key=replace(FEATURES.key, image_size=0))
    with pytest.raises(HeadError, match="nothing says which image tower"):
        export(imported, "torch", tmp_path / "out", with_backbone=True)
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


@pytest.mark.parametrize("wrong", ["logits", "probabilities", "nothing"])
def test_files_that_answer_differently_are_not_left(
    wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, opened = formats.WRITERS["numpy"]

    def run(folder: Path) -> formats.Run:
        answer = opened(folder)

        def differently(rows: np.ndarray) -> formats.Outputs:
            logits, probabilities = answer(rows)
            if wrong == "nothing":
                raise ValueError("no such operation")
            if wrong == "logits":
                return logits + np.float32(0.001), probabilities
            return logits, probabilities[:, ::-1]

        return differently

    monkeypatch.setattr(writing, "WRITERS", {"numpy": (write, run)})
    with pytest.raises(HeadError, match=r"Nothing was\s+exported"):
        export(head_of("ridge"), "numpy", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_the_card_is_complete_and_escaped(tmp_path: Path) -> None:
    head = head_of("ridge")
    classes = ("a|b", "<script>", "*c*\x1b[2J", *head.classes[3:])
    written = export(replace(head, classes=classes), "numpy", tmp_path / "out")
    text = (written.path / "README.md").read_text()
    for part in (
        "# ridge on toy",
        "from predict import predict",
        "`features`: float32 [n, 16]",
        "Preprocessing: none",
        "Settings: lam=",
        "shots 6, seed 3",
        "Licence of the weights:",
        "None: the head came without the record of a run.",
        "256 rows against the head",
        "1 row against the head",
        "0: a\\|b",
        "1: \\<script\\>",
        "2: \\*c\\*",
    ):
        assert part in text, part
    assert "\x1b" not in text
    facts = json.loads((written.path / "head.json").read_text())
    assert facts["classes"] == list(classes)
    assert facts["compared"][0]["largest_relative_difference"] <= HEAD_TOLERANCE


def test_a_float64_head_is_written_in_float32(tmp_path: Path) -> None:
    head = head_of("ridge")
    fixed = {name: t.double() for name, t in head.fitted.fixed.items()}
    head = replace(head, fitted=replace(head.fitted, fixed=fixed))
    export(head, "torch", tmp_path / "out")
    kinds = {t.dtype for t in load_file(tmp_path / "out" / "head.safetensors").values()}
    assert kinds == {torch.float32}


@pytest.mark.parametrize("to", quick(["numpy", "torch", "onnx"], 1))
def test_a_disk_that_is_full_or_read_only_is_said(to: str, tmp_path: Path) -> None:
    if to == "onnx":
        pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")
    head = head_of("ridge")
    for fault in (no_more_than(200), failing(tmp_path, READ_ONLY)):
        with fault, pytest.raises(HeadError, match=r"/out was not written .*another place") as told:
            export(head, to, tmp_path / "out")
        assert "tmp-" not in str(told.value)
        assert list(tmp_path.iterdir()) == []
    assert export(head, to, tmp_path / "out").path == tmp_path / "out"


def test_of_two_exports_to_one_folder_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, opened = formats.WRITERS["numpy"]

    def overtaken(program: Program, facts: Mapping[str, Any], folder: Path) -> None:
        write(program, facts, folder)
        monkeypatch.setattr(writing, "WRITERS", formats.WRITERS)
        export(head_of("gda"), "numpy", tmp_path / "out")

    monkeypatch.setattr(writing, "WRITERS", {"numpy": (overtaken, opened)})
    with pytest.raises(UsageError, match=r"out exists\. Name another folder with out"):
        export(head_of("ridge"), "numpy", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert json.loads((tmp_path / "out" / "head.json").read_text())["method"] == "gda"
