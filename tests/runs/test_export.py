"""Exported models give the probabilities of the trained one, on raw rows with missing values and unseen words."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor

from tests.data.tables import mixed_columns, mixed_data, mixed_model
from torchnn.model.predictor import raw_features
from torchnn.runs import export
from torchnn.runs.export import ExportError, export_model, load_onnx, load_program
from torchnn.tables.encode import encode
from torchnn.training import BinaryClassifier


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> BinaryClassifier:
    return mixed_model(tmp_path_factory.mktemp("run"), calibrate=True, threshold="f1")


@pytest.fixture(scope="module")
def other_rows(model: BinaryClassifier) -> Tensor:
    """Rows that the export was not checked on: another number of them, and words that training has not seen."""
    columns = mixed_columns(37, seed=1)
    columns["job"] = ["astronaut", None, *columns["job"].to_pylist()[2:]]
    return raw_features(columns, model.options.schema)


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_the_file_gives_the_probabilities_of_the_model_on_other_rows(
    suffix: str, model: BinaryClassifier, other_rows: Tensor, tmp_path: Path
) -> None:
    path = tmp_path / f"model{suffix}"
    assert export_model(model, path, mixed_data().table.features[:50]) < 1e-5
    load = load_onnx if suffix == ".onnx" else load_program
    with torch.no_grad():
        torch.testing.assert_close(load(path.read_bytes())(other_rows), model(other_rows), rtol=1e-5, atol=1e-6)
    assert list(tmp_path.iterdir()) == [path]


def test_the_file_says_what_its_columns_are(model: BinaryClassifier, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    export_model(model, path, mixed_data().table.features[:50])
    properties = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    described = json.loads(properties["torchnn.schema"])
    assert [column["name"] for column in described["columns"]] == ["hours", "job", "member", "since"]
    assert described["columns"][1]["values"] == ["cook", "nurse", "smith"]
    assert described["threshold"] == pytest.approx(model.threshold)
    assert tuple(described["slots"]) == mixed_data().table.columns


def test_an_export_with_other_probabilities_is_not_written(
    model: BinaryClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A planted error: the exported program is that of a model with one weight changed."""
    honest = export.to_program

    def planted(model: BinaryClassifier, rows: Tensor) -> bytes:
        weight = model.network.layers[0].weight
        with torch.no_grad():
            weight[0, 0] += 0.5  # type: ignore[index,operator]
        content = honest(model, rows)
        with torch.no_grad():
            weight[0, 0] -= 0.5  # type: ignore[index,operator]
        return content

    monkeypatch.setattr(export, "to_program", planted)
    with pytest.raises(ExportError, match=r"differs from the trained one by .*, so it was not written"):
        export_model(model, tmp_path / "model.pt2", mixed_data().table.features[:50])
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_exists_is_kept(model: BinaryClassifier, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_text("mine")
    with pytest.raises(ExportError, match=r"model\.onnx exists: give a new file"):
        export_model(model, path, mixed_data().table.features[:50])
    assert path.read_text() == "mine"
    with pytest.raises(ExportError, match=r"model\.txt does not end in \.onnx or \.pt2"):
        export_model(model, tmp_path / "model.txt", mixed_data().table.features[:50])


def test_predictions_take_a_table_in_any_form(model: BinaryClassifier, tmp_path: Path) -> None:
    import pandas as pd

    columns = mixed_columns(50, seed=2)
    frame = pd.DataFrame({name: values.to_pandas() for name, values in columns.items()})
    frame.to_csv(tmp_path / "new.csv", index=False)
    data = mixed_data()
    expected = model(encode(_typed(columns), data.schema)).detach().double().flatten().numpy()
    for table in (columns, frame, frame.drop(columns="late"), tmp_path / "new.csv", str(tmp_path / "new.csv")):
        probability = model.predict_proba(table)
        np.testing.assert_array_equal(probability[:, 1], expected)
        np.testing.assert_array_equal(probability.sum(axis=1), 1)
    labels = np.where(expected >= model.threshold, "yes", "no")
    np.testing.assert_array_equal(model.predict(frame), labels)
    with pytest.raises(ValueError, match="the table does not have the column 'hours' that the model was trained on"):
        model.predict_proba(frame.drop(columns="hours"))


def _typed(columns: dict[str, object]) -> dict[str, object]:
    from torchnn.tables.kinds import values_of
    from torchnn.tables.raw import raw_table

    raw = raw_table(columns)
    return {column.name: values_of(raw, column.name, column.kind, ()) for column in mixed_data().schema.columns}


def test_a_model_without_names_takes_arrays_only() -> None:
    model = BinaryClassifier(2, hidden_sizes=[3]).eval()
    assert model.predict_proba(torch.zeros(4, 2)).shape == (4, 2)
    with pytest.raises(ValueError, match="without column names: give raw features"):
        model.predict_proba({"a": [1.0], "b": [2.0]})
