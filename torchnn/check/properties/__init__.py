"""What a backward has to get right, one function a property; imported in the order in which they are checked."""

# isort: off
from torchnn.check.properties import first
from torchnn.check.properties import values
from torchnn.check.properties import layouts
from torchnn.check.properties import engine
from torchnn.check.properties import saving
from torchnn.check.properties import precision
from torchnn.check.properties import derivatives
from torchnn.check.properties import transforms
from torchnn.check.properties import graphs
from torchnn.check.properties import processes
from torchnn.check.properties import cost
# isort: on

__all__ = [
    "cost",
    "derivatives",
    "engine",
    "first",
    "graphs",
    "layouts",
    "precision",
    "processes",
    "saving",
    "transforms",
    "values",
]
