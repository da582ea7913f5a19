"""The preprocessing gives the numbers of scikit-learn, for all batches, dtypes and devices, and can be exported."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder, RobustScaler, StandardScaler
from torch._subclasses.fake_tensor import FakeTensorMode

from torchnn.model.preprocess import Categories, Preprocess, Scaling, embedding_width
from torchnn.tables.schema import Column, Schema

COLOURS = tuple(f"colour {number}" for number in range(4))
WORDS = tuple(f"word {number:02}" for number in range(40))
SCHEMA = Schema(
    columns=(
        Column(name="age", kind="number", missing=True),
        Column(name="colour", kind="category", values=COLOURS, missing=True),
        Column(name="pay", kind="number"),
        Column(name="word", kind="category", values=WORDS),
    ),
    exact=True,
)


def raw(rows: int = 200, seed: int = 0) -> torch.Tensor:
    """Raw rows of `SCHEMA`: NaN is missing, code 0 a value that training has not seen."""
    random = np.random.default_rng(seed)
    age = np.where(random.random(rows) < 0.2, np.nan, random.normal(50, 9, rows))
    colour = np.where(random.random(rows) < 0.2, np.nan, random.integers(1, 5, rows))
    return torch.from_numpy(np.stack([age, colour, random.lognormal(9, 2, rows), random.integers(1, 41, rows)], 1))


def fitted(
    scaling: Scaling = "standard", categories: Categories = "auto", rows: torch.Tensor | None = None
) -> Preprocess:
    torch.manual_seed(0)
    preprocess = Preprocess(4, SCHEMA, scaling, categories)
    preprocess.fit(raw() if rows is None else rows)
    return preprocess.double()


@pytest.mark.parametrize(
    ("scaling", "scaler", "fill"), [("standard", StandardScaler, "mean"), ("robust", RobustScaler, "median")]
)
def test_numbers_flags_and_categories_are_those_of_scikit_learn(scaling: Scaling, scaler: Any, fill: str) -> None:
    train, new = raw(), raw(50, seed=1)
    new[:3, 1], new[:5, 3] = 0, 0
    numbers = slice(0, 3, 2)
    options = {} if scaling == "standard" else {"unit_variance": True}
    expected = scaler(**options).fit(train[:, numbers])
    filled = SimpleImputer(strategy=fill, add_indicator=True).fit(train[:, numbers]).transform(new[:, numbers])
    scaled = expected.transform(filled[:, :2])
    known = [list(map(float, range(1, 5))), list(map(float, range(1, 41)))]
    one_hot = OneHotEncoder(categories=known, handle_unknown="ignore", sparse_output=False).fit(np.ones((1, 2)))
    ours = fitted(scaling, "one_hot")(new).detach().numpy()
    np.testing.assert_allclose(ours[:, :2], scaled, rtol=1e-6 if scaling == "robust" else 1e-12, atol=1e-12)
    np.testing.assert_array_equal(ours[:, 2], filled[:, 2])
    theirs = one_hot.transform(new[:, 1::2].nan_to_num(0))
    np.testing.assert_array_equal(ours[:, 4:8], theirs[:, :4])
    np.testing.assert_array_equal(ours[:, 8], new[:, 1].isnan())
    np.testing.assert_array_equal(ours[:, 10:50], theirs[:, 4:])


def test_a_slot_that_training_never_used_gives_0() -> None:
    preprocess, new = fitted(categories="one_hot"), raw(6)
    new[:, 1], new[:, 3] = 0, torch.nan
    assert not preprocess(new)[:, 3:].any(), "neither an unknown colour nor a missing word was in training"
    seen = raw()
    seen[:9, 1] = 0
    assert fitted(categories="one_hot", rows=seen)(new)[:, 3].all()
    embedding = fitted()
    assert not embedding(new)[:, 9:].any()
    assert embedding.out_features == 2 + 1 + 6 + embedding_width(SCHEMA.columns[3]) == embedding(new).shape[1]


def test_large_numbers_with_small_differences_keep_their_digits() -> None:
    schema = Schema(columns=(Column(name="time", kind="number"),), exact=True)
    features = 1e9 + torch.randn(500, 1, dtype=torch.float64)
    preprocess = Preprocess(1, schema)
    preprocess.fit(features)
    expected = torch.from_numpy(StandardScaler().fit_transform(features.numpy() - 1e9))
    torch.testing.assert_close(preprocess(features).double(), expected, rtol=1e-5, atol=1e-5)
    inexact = Preprocess(1)
    inexact.fit(features)
    assert not torch.allclose(inexact(features.float()).double(), expected, atol=1e-2), "float32 cannot"


@pytest.mark.parametrize("scaling", ["standard", "robust"])
def test_fitting_in_batches_gives_the_same_as_fitting_all_rows(scaling: Scaling) -> None:
    whole, parts = fitted(scaling, rows=raw(999)), Preprocess(4, SCHEMA, scaling)
    torch.manual_seed(0)
    parts = Preprocess(4, SCHEMA, scaling)
    parts.fit(iter(raw(999).split(100)))
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name].double(), value.double(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(torch.cat([whole(part) for part in raw(50, 3).split(7)]), whole(raw(50, 3)))
    assert whole(raw(0)).shape == (0, whole.out_features)


@pytest.mark.slow
def test_robust_scaling_works_beyond_the_limit_of_torch_quantile() -> None:
    features = torch.rand(400_000, 50)
    preprocess = Preprocess(50, scaling="robust")
    preprocess.fit(features)
    torch.testing.assert_close(preprocess.mean, torch.full((50,), 0.5), atol=5e-3, rtol=0)


def test_gradients_reach_the_embeddings_of_the_values_that_occur() -> None:
    preprocess = fitted()
    rows = raw(3)
    rows[:, 3] = torch.tensor([2.0, 5.0, 5.0])
    preprocess(rows)[:, 9:].sum().backward()
    (gradient,) = (parameter.grad for parameter in preprocess.parameters())
    assert gradient is not None
    assert gradient[:, 0].nonzero().flatten().tolist() == [2, 5]
    assert gradient[5, 0] == 2 * gradient[2, 0]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_other_dtypes_only_round_the_result(dtype: torch.dtype) -> None:
    rows = raw(40, 2) + torch.tensor([0.0, 0, 1e6, 0])
    exact = fitted(rows=rows)
    expected = exact(rows).detach()
    module = fitted(rows=rows).to(dtype)
    assert module.mean.dtype == torch.float64
    result = module(rows)
    assert result.dtype == dtype
    torch.testing.assert_close(result.double(), expected, rtol=2 * torch.finfo(dtype).eps, atol=torch.finfo(dtype).eps)


def test_it_can_be_exported_for_any_number_of_rows() -> None:
    preprocess = fitted()
    rows = torch.export.Dim("rows", min=1)
    program = torch.export.export(preprocess, (raw(9),), dynamic_shapes=({0: rows},))
    torch.testing.assert_close(program.module()(raw(31, 5)), preprocess(raw(31, 5)))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_it_stays_on_the_device_of_its_rows(device: str) -> None:
    preprocess = Preprocess(4, SCHEMA)
    with FakeTensorMode():
        held = [*preprocess.named_parameters(), *preprocess.named_buffers()]
        moved = {name: torch.empty(value.shape, dtype=value.dtype, device=device) for name, value in held}
        result = torch.func.functional_call(preprocess, moved, torch.empty(5, 4, device=device, dtype=torch.float64))
    assert (result.device.type, result.shape) == (device, (5, preprocess.out_features))
