"""A trained model as a file that other programs run: ONNX, or PyTorch's own exported program."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torchnn.console import ONNX_LOGGERS, quiet
from torchnn.model.classifier import BinaryClassifier

FORMATS = (".onnx", ".pt2")
INPUT, OUTPUT = "features", "probability"
# Units in the last place of float32 between two ways to sum a layer of some hundred neurons, and to take a sigmoid.
TOLERANCE = 1e-5


class ExportError(ValueError):
    """A model that cannot be exported, or whose exported form answers otherwise than it does."""


def export_model(model: BinaryClassifier, path: Path, rows: Tensor) -> float:
    """Write a model, preprocessing included, and prove that what was written answers as the model does.

    The file takes raw features (rows, columns) under the name `features`: numbers as they are, NaN for missing,
    categories as codes; and gives `probability` (rows, 1). The columns, with the words behind the codes, stand in its
    metadata under `torchnn.schema`, as JSON.

    Args:
        model: what to export.
        path: a new file, .onnx or .pt2.
        rows: raw features that it is proven on, (rows, columns), 2 or more.

    Returns:
        The largest difference of a probability on `rows`.

    Raises:
        ExportError: another suffix, a package that is missing, or answers that differ by more than 1e-5.
        OSError: the file cannot be written.
    """
    if path.suffix not in FORMATS:
        raise ExportError(f"{path} has no suffix of {' or '.join(FORMATS)}: choose one.")
    if path.exists():
        raise ExportError(f"{path} exists: give a new file, or remove it first.")
    model = model.cpu().eval()
    write, run = (write_onnx, run_onnx) if path.suffix == ".onnx" else (write_program, run_program)
    unfinished = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        write(model, unfinished, rows)
        with torch.no_grad():
            expected = model(rows)
        difference = float((run(unfinished)(rows) - expected).abs().max())
        if not difference <= TOLERANCE:
            raise ExportError(f"the exported model is {difference:.2g} off the trained one, so it was not written.")
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return difference


def write_onnx(model: BinaryClassifier, path: Path, rows: Tensor) -> None:
    """An ONNX file with the weights inside."""
    try:
        import onnx
    except ImportError as error:
        raise ExportError(
            "ONNX needs the packages onnx, onnxscript and onnxruntime: pip install 'torchnn[export]'."
        ) from error
    with quiet(*ONNX_LOGGERS):
        program: Any = torch.onnx.export(
            model,
            (rows[:2],),
            dynamo=True,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim("rows")},),
            verbose=False,
        )
    graph = program.model_proto
    onnx.helper.set_model_props(graph, {"torchnn.schema": description(model)})
    onnx.save(graph, path)


def run_onnx(path: Path) -> Callable[[Tensor], Tensor]:
    """The function that an ONNX file computes."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda rows: torch.from_numpy(session.run([OUTPUT], {INPUT: rows.numpy()})[0])


def write_program(model: BinaryClassifier, path: Path, rows: Tensor) -> None:
    """A program of torch.export, which `torch.export.load` reads."""
    program = torch.export.export(model, (rows[:2],), dynamic_shapes=({0: torch.export.Dim("rows")},))
    torch.export.save(program, path, extra_files={"torchnn.schema": description(model)})


def run_program(path: Path) -> Callable[[Tensor], Tensor]:
    """The function that an exported program computes."""
    module: Any = torch.export.load(path).module()
    return lambda rows: module(rows).detach()


def description(model: BinaryClassifier) -> str:
    """Columns, words behind codes, classes and threshold, as JSON."""
    schema = {} if model.schema is None else {**model.schema.as_plain(), "slots": list(model.schema.slots)}
    return json.dumps({**schema, "threshold": model.threshold}, ensure_ascii=False)
