"""What the columns of a table are for."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Roles:
    """What the columns of a table are for.

    Attributes:
        target: what is predicted.
        positive: its value that is class 1; None for the one that everybody would choose.
        include: names or patterns of the columns to learn from; empty for all.
        exclude: names or patterns of columns to leave out.
        keep: columns to keep even if they look useless.
        types: kinds of columns that are not what they look like.
        id_column: names the rows in predictions; "" for their number.
        weight_column: the weight of each row; "" for 1.
        missing: further words that stand for a missing value.
        max_categories: the most values of a category.
    """

    target: str = ""
    positive: str | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    types: Mapping[str, str] = field(default_factory=dict)
    id_column: str = ""
    weight_column: str = ""
    missing: tuple[str, ...] = ()
    max_categories: int = 1000
