"""An explanation as a page for a browser."""

from torchnn.explain.render.page.document import GENERATOR, page

__all__ = ["GENERATOR", "page"]
