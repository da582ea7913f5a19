"""What a backward has to get right: one function for each property, imported in the order in which they are checked."""

# isort: off
from torchnn.check.properties import basics
from torchnn.check.properties import values
from torchnn.check.properties import layouts
from torchnn.check.properties import autograd_engine
from torchnn.check.properties import saving
from torchnn.check.properties import autocast
from torchnn.check.properties import derivatives
from torchnn.check.properties import transforms
from torchnn.check.properties import graphs
from torchnn.check.properties import processes
from torchnn.check.properties import cost
# isort: on

__all__ = [
    "autocast",
    "autograd_engine",
    "basics",
    "cost",
    "derivatives",
    "graphs",
    "layouts",
    "processes",
    "saving",
    "transforms",
    "values",
]
