"""A trained model as a file that other programs run: ONNX, or an exported program of torch."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torchnn.console import ONNX_LOGGERS, quiet
from torchnn.files import replacing
from torchnn.model.classifier import BinaryClassifier

FORMATS = (".onnx", ".pt2")
INPUT, OUTPUT = "features", "probability"
# Of a probability in float32: a layer of some hundred neurons may be summed in another order.
TOLERANCE = 1e-5


class ExportError(ValueError):
    """A model that cannot be exported, or whose exported form gives other probabilities."""


def export_model(model: BinaryClassifier, path: Path, rows: Tensor) -> float:
    """Write a model with its preprocessing, after checking that the exported form gives the same probabilities.

    The file takes raw features (rows, columns) under the name `features`: numbers, NaN for a missing value, categories
    as codes. It returns `probability` (rows, 1). Its metadata hold the columns, with the words behind the codes, under
    `torchnn.schema` as JSON.

    Args:
        model: the model to export.
        path: a new file, .onnx or .pt2.
        rows: raw features that the export is checked on, (rows, columns), 2 rows or more.

    Returns:
        The largest difference of a probability on `rows`.

    Raises:
        ExportError: another suffix, a package that is missing, or probabilities that differ by more than 1e-5.
        OSError: the file cannot be written.
    """
    if path.suffix not in FORMATS:
        raise ExportError(f"{path} does not end in {' or '.join(FORMATS)}: choose one of them.")
    if path.exists():
        raise ExportError(f"{path} exists: give a new file, or remove it first.")
    model = model.cpu().eval()
    export, load = (to_onnx, load_onnx) if path.suffix == ".onnx" else (to_program, load_program)
    content = export(model, rows)
    with torch.no_grad():
        expected = model(rows)
    difference = float((load(content)(rows) - expected).abs().max())
    if not difference <= TOLERANCE:
        raise ExportError(
            f"the exported model differs from the trained one by {difference:.2g}, so it was not written."
        )
    with replacing(path) as file:
        file.write(content)
    return difference


def to_onnx(model: BinaryClassifier, rows: Tensor) -> bytes:
    """The content of an ONNX file with the weights inside."""
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
    content: bytes = graph.SerializeToString()
    return content


def load_onnx(content: bytes) -> Callable[[Tensor], Tensor]:
    """The function that an ONNX file computes."""
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return lambda rows: torch.from_numpy(session.run([OUTPUT], {INPUT: rows.numpy()})[0])


def to_program(model: BinaryClassifier, rows: Tensor) -> bytes:
    """The content of a file that `torch.export.load` reads."""
    program = torch.export.export(model, (rows[:2],), dynamic_shapes=({0: torch.export.Dim("rows")},))
    content = io.BytesIO()
    torch.export.save(program, content, extra_files={"torchnn.schema": description(model)})
    return content.getvalue()


def load_program(content: bytes) -> Callable[[Tensor], Tensor]:
    """The function that an exported program computes."""
    module: Any = torch.export.load(io.BytesIO(content)).module()
    return lambda rows: module(rows).detach()


def description(model: BinaryClassifier) -> str:
    """Columns, words behind codes, classes and threshold, as JSON."""
    schema = {} if model.schema is None else {**model.schema.as_plain(), "slots": list(model.schema.slots)}
    return json.dumps({**schema, "threshold": model.threshold}, ensure_ascii=False)
