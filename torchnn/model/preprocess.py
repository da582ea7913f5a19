"""Preprocessing that is saved with the model: it turns raw columns into the input of a network."""

import math
from collections.abc import Callable, Iterable
from typing import Literal

import torch
from torch import Tensor, nn

from torchnn.tables.schema import Column, Schema

ONE_HOT_UP_TO = 32  # values; with more, embeddings have fewer parameters than the weights that they replace
SAMPLE = 1_000_000  # most rows that medians and quartiles are computed from
QUARTILES_TO_SD = 1.3489795  # distance between the quartiles of a normal distribution of standard deviation 1
FITTED_AT_A_TIME = 65_536  # rows
Scaling = Literal["standard", "robust", "none"]
Categories = Literal["auto", "one_hot", "embed"]


class Preprocess(nn.Module):
    """Standardises numbers, flags missing values, and makes categories one-hot or embeddings.

    Before `fit` it scales nothing. A missing number becomes the mean (the median with robust scaling), and a flag marks
    it in columns that had missing values in training. A category that training has not seen gets a slot of its own. A
    slot that no training row used gives 0.

    Args:
        num_features: number of columns of the raw matrix.
        schema: the columns; None for numbers without missing values.
        scaling: standard for (x − mean)/sd, robust for (x − median)/(quartile range/1.349), none for x.
        categories: one_hot, embed, or auto for one-hot up to 32 values.

    Shapes: raw (rows, num_features) to (rows, `out_features`).

    >>> preprocess = Preprocess(2)
    >>> preprocess.fit(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
    >>> preprocess(torch.tensor([[1.0, 5.0]]))
    tensor([[-1., 0.]])
    """

    mean: Tensor
    scale: Tensor
    number_slots: Tensor
    flag_slots: Tensor
    one_hot_slots: Tensor
    one_hot_offsets: Tensor
    one_hot_missing: Tensor
    one_hot_used: Tensor

    def __init__(
        self,
        num_features: int,
        schema: Schema | None = None,
        scaling: Scaling = "standard",
        categories: Categories = "auto",
    ) -> None:
        super().__init__()
        self.scaling = scaling
        slots = list(enumerate(schema.slot_columns)) if schema else []
        numbers = [slot for slot, column in slots if column.kind != "category"] if schema else list(range(num_features))
        first = {column.name: slot for slot, column in reversed(slots)}
        flags = [first[column.name] for column in (schema.columns if schema else ()) if _has_flag(column)]
        category_slots = [(slot, column) for slot, column in slots if column.kind == "category"]
        one_hot = [(slot, column) for slot, column in category_slots if is_one_hot(column, categories)]
        embedded = [(slot, column) for slot, column in category_slots if not is_one_hot(column, categories)]

        self.only_numbers = not (flags or category_slots)
        self.may_be_missing = schema is not None
        dtype = torch.float64 if schema and schema.exact else torch.get_default_dtype()
        self.register_buffer("mean", torch.zeros(len(numbers), dtype=dtype))
        self.register_buffer("scale", torch.ones(len(numbers), dtype=dtype))
        self.register_buffer("number_slots", torch.tensor(numbers, dtype=torch.long), persistent=False)
        self.register_buffer("flag_slots", torch.tensor(flags, dtype=torch.long), persistent=False)
        widths = torch.tensor([slots_of(column) for _, column in one_hot], dtype=torch.long)
        self.register_buffer(
            "one_hot_slots", torch.tensor([slot for slot, _ in one_hot], dtype=torch.long), persistent=False
        )
        self.register_buffer("one_hot_offsets", widths.cumsum(0) - widths, persistent=False)
        self.register_buffer("one_hot_used", torch.ones(int(widths.sum())))
        self.embedded_slots = [slot for slot, _ in embedded]
        self.embeddings = nn.ModuleList(nn.Embedding(slots_of(c), embedding_width(c)) for _, c in embedded)
        self.register_buffer("one_hot_missing", widths - 1, persistent=False)
        width = sum(embedding_width(column) for _, column in embedded)
        self.out_features = len(numbers) + len(flags) + int(widths.sum()) + width
        names = schema.slots if schema else tuple(f"column {slot}" for slot in range(num_features))
        self.out_names = (
            *(names[slot] for slot in numbers),
            *(f"{schema.slot_columns[slot].name} missing" for slot in flags if schema),
            *(f"{column.name} {value}" for _, column in one_hot for value in ("other", *column.values, "missing")),
            *(f"{column.name} {part}" for _, column in embedded for part in range(1, embedding_width(column) + 1)),
        )

    def fit(self, features: Tensor | Iterable[Tensor]) -> None:
        """Compute centre and scale of each number, and record which slots of categories occur.

        Mean and population standard deviation are accumulated in float64, batch by batch; medians and quartiles are
        those of the first million rows. A constant column gets scale 1, so that it becomes 0 and stays finite.

        Args:
            features: raw training rows, (rows, num_features), as one tensor or in parts.
        """
        count = mean = squares = torch.zeros(len(self.mean), dtype=torch.float64)
        used = torch.zeros_like(self.one_hot_used)
        embedded = [torch.zeros(table.num_embeddings, dtype=torch.bool) for table in self._tables]
        sample: list[Tensor] = []
        batches = [features] if isinstance(features, Tensor) else features
        for rows in (rows for batch in batches for rows in batch.split(FITTED_AT_A_TIME)):
            numbers = rows.index_select(1, self.number_slots).double()
            count, mean, squares = add_moments(count, mean, squares, numbers)
            if self.scaling == "robust" and len(sample) * FITTED_AT_A_TIME < SAMPLE:
                sample.append(numbers)
            used += self._one_hot(rows).sum(0)
            for seen, slot in zip(embedded, self.embedded_slots, strict=True):
                seen[codes_of(rows.select(1, slot), len(seen) - 1)] = True
        sd = (squares / count.clamp(min=1)).sqrt()
        if self.scaling == "robust":
            sampled = torch.cat(sample)
            marks = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
            # Column by column, because torch computes no quantiles of more than 16 million numbers at once.
            columns = [column.nanquantile(marks).nan_to_num() for column in sampled.unbind(1)]
            low, mean, high = torch.stack(columns, dim=1) if columns else sampled.new_zeros(3, 0)
            width = (high - low) / QUARTILES_TO_SD
            sd = torch.where(width > 0, width, sd)  # the quartiles may be equal although the column is not constant
        if self.scaling != "none":
            self.mean.copy_(mean)
            self.scale.copy_(torch.where(sd > 0, sd, torch.ones_like(sd)))
        self.one_hot_used.copy_(used > 0)
        with torch.no_grad():
            for table, seen in zip(self._tables, embedded, strict=True):
                table.weight[~seen] = 0

    @property
    def is_fitted(self) -> bool:
        """Whether `fit` or a checkpoint has set centre and scale."""
        return bool((self.mean != 0).any() or (self.scale != 1).any())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Preprocess":
        """Convert as any module, but keep the precision of centre and scale: 100,000 is infinite in float16."""
        before = {name: getattr(self, name) for name in ("mean", "scale")}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, exact in before.items():
            if torch.finfo(getattr(self, name).dtype).bits < torch.finfo(exact.dtype).bits:
                setattr(self, name, exact.to(getattr(self, name).device))
        return self

    def forward(self, features: Tensor) -> Tensor:
        dtype = self.one_hot_used.dtype
        if self.only_numbers:
            numbers = ((features - self.mean) / self.scale).to(dtype)
            return numbers.nan_to_num(nan=0.0) if self.may_be_missing else numbers
        numbers = ((features.index_select(1, self.number_slots) - self.mean) / self.scale).nan_to_num(nan=0.0)
        parts = [
            numbers,
            features.index_select(1, self.flag_slots).isnan(),
            self._one_hot(features) * self.one_hot_used,
        ]
        for table, slot in zip(self._tables, self.embedded_slots, strict=True):
            parts.append(table(codes_of(features.select(1, slot), table.num_embeddings - 1)))
        return torch.cat([part.to(dtype) for part in parts], dim=1)

    @property
    def _tables(self) -> list[nn.Embedding]:
        return list(self.embeddings)  # type: ignore[arg-type]

    def _one_hot(self, features: Tensor) -> Tensor:
        """(rows, slots of all one-hot columns): 1 where a row has the value."""
        raw = features.index_select(1, self.one_hot_slots)
        codes = torch.where(raw.isnan(), self.one_hot_missing, raw.nan_to_num().long()) + self.one_hot_offsets
        blank = self.one_hot_used.new_zeros(features.shape[0], self.one_hot_used.shape[0])
        return blank.scatter(1, codes, 1.0)


def add_moments(count: Tensor, mean: Tensor, squares: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Add rows (rows, columns) to count, mean and sum of squared deviations; NaN is skipped.

    Chan, Golub and LeVeque 1979, "Updating formulae and a pairwise algorithm for computing sample variances".
    """
    known = ~numbers.isnan()
    added = known.sum(0).double()
    new_mean = numbers.nan_to_num(nan=0.0).sum(0) / added.clamp(min=1)
    deviations = torch.where(known, numbers - new_mean, 0.0)
    total = (count + added).clamp(min=1)
    shift = new_mean - mean
    squares = squares + deviations.square().sum(0) + shift.square() * count * added / total
    return count + added, mean + shift * added / total, squares


def codes_of(column: Tensor, missing: int) -> Tensor:
    """Integer codes of a category column (rows,); `missing` where it is NaN."""
    return torch.where(column.isnan(), missing, column.nan_to_num().long())


def slots_of(column: Column) -> int:
    """Number of slots of a category: one for unknown values, one for each known value, one for missing."""
    return len(column.values) + 2


def is_one_hot(column: Column, categories: Categories) -> bool:
    """Whether a category column becomes one-hot instead of an embedding."""
    return categories == "one_hot" or (categories == "auto" and len(column.values) <= ONE_HOT_UP_TO)


def embedding_width(column: Column) -> int:
    """Width of the embedding of a category with n values: 1.6 n^0.56, at most 50; the rule of fastai."""
    return min(50, round(1.6 * math.pow(len(column.values) + 1, 0.56)))


def _has_flag(column: Column) -> bool:
    return column.kind != "category" and column.missing
