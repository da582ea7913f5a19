"""The terminal and the page show every number of the trace, and names of columns never become markup."""

import re
from html.parser import HTMLParser
from io import StringIO

import pytest
import torch
from rich.console import Console

import torchnn
from tests.explain.networks import data, network, small
from torchnn.explain import Trace, trace
from torchnn.explain.render.numbers import full, short, tiny
from torchnn.explain.render.page import GENERATOR, page
from torchnn.explain.render.terminal import Explanation
from torchnn.ops.activation import ACTIVATIONS

LONG_ROW = 200


def terminal(report: Trace, **options: int) -> str:
    text = StringIO()
    Console(file=text, width=LONG_ROW, color_system=None).print(Explanation(report, **options))
    return text.getvalue()


class Elements(HTMLParser):
    """The tags, attributes and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def values(self, attribute: str) -> list[str]:
        return [value for _, attributes in self.tags if (value := attributes.get(attribute)) is not None]


def without_script(text: str) -> str:
    return re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)


def numbers_of(report: Trace) -> set[str]:
    """Every number of a small trace as it should appear."""
    shown = {short(value) for value in (report.value, report.value_after)}
    for layer in report.layers:
        tensors = [layer.z, layer.a, layer.delta, layer.slope, layer.weight, layer.new_weight]
        tensors += [one.by_hand for one in layer.comparisons]
        shown |= {short(value) for tensor in tensors for value in tensor.flatten().tolist()}
        compared = [getattr(one, name) for one in layer.comparisons for name in ("by_hand", "autograd", "differences")]
        shown |= {full(value) for tensor in compared for value in tensor.flatten().tolist()}
    return shown


@pytest.mark.parametrize("form", [terminal, page])
def test_every_number_of_the_trace_is_shown(form: object) -> None:
    assert callable(form)
    for report in (small(), trace(network("tanh"), *data(3), steps=4)):
        text = without_script(form(report)).replace("&#x27;", "'")
        missing = {number for number in numbers_of(report) if number not in text}
        assert not missing


@pytest.mark.parametrize("form", [terminal, page])
def test_a_wrong_backward_is_shown_as_wrong(form: object, monkeypatch: pytest.MonkeyPatch) -> None:
    assert callable(form)
    right = ACTIVATIONS["sigmoid"]
    assert "✗ differ" not in form(small())
    monkeypatch.setitem(ACTIVATIONS, "sigmoid", right._replace(backward=lambda g, a: g * a))
    text = without_script(form(small()))
    assert text.count("✗ differ") >= 2
    assert "These gradients differ: W[1], b[1]." in text


@pytest.mark.parametrize("form", [terminal, page])
def test_the_explanation_covers_every_part_of_the_derivation(form: object) -> None:
    assert callable(form)
    text = without_script(form(trace(network(outputs=2), *data(outputs=2))))
    assert "(2 × 1) and (2 × 2) cannot be multiplied, and δ[2] must be 2 × 1" in text
    assert "can be multiplied only because layer 3 has one neuron" in without_script(form(trace(network(), *data())))
    for part in ("slope of the loss", "cancel", "gradient descent", "central differences", "m = 5 examples"):
        assert part in text


def test_a_wide_layer_is_cut_and_the_rest_is_counted() -> None:
    report = trace(torchnn.MLP([30, 20, 1]), torch.randn(30), torch.ones(1), max_differences=4)
    text = terminal(report, max_width=4)
    assert "… 26 more" in text
    assert "(26 more terms: " in text
    assert "… 16 more neurons" in text
    assert short(float(report.layers[0].z[0, 3])) in text
    web = without_script(page(report, max_width=4))
    assert "26 more columns and 16 more rows" in web
    assert len(Elements(web).values("data-neuron")) == 4 + 4 + 1 + 1  # the last is the target


def test_a_chosen_layer_is_shown_or_opened_alone() -> None:
    text = terminal(small(), layer=2)
    assert "Layer 2 backward" in text
    assert "Layer 1" not in text
    details = re.findall(r'<details class="step[^>]*>', page(small(), layer=2))
    assert [line for line in details if " open" in line] == [
        '<details class="step forward" id="forward-2" open>',
        '<details class="step backward" id="backward-2" open>',
    ]


def test_names_of_columns_never_become_markup() -> None:
    evil = "</script><img src=//x onerror=alert(1)>'\"&"
    report = small(columns=[evil, "[bold red]b"], about=evil, steps=3)
    text = page(report)
    elements = Elements(without_script(text))
    assert not elements.values("onerror")
    assert "img" not in [tag for tag, _ in elements.tags]
    assert text.count("</script>") == 2
    assert evil in elements.text
    assert "[bold red]b" in elements.text
    assert evil in terminal(report)


def test_the_page_loads_nothing_from_outside() -> None:
    text = page(small(steps=20))
    elements = Elements(text)
    assert text.index(GENERATOR) < 1024
    assert not elements.values("src")
    assert not elements.values("href")
    assert not re.search(r"https?://|url\(|@import|fetch\(|XMLHttpRequest|WebSocket", text)
    assert "default-src 'none'" in text
    ids = elements.values("id")
    assert len(ids) == len(set(ids))


def test_the_page_contains_formulas_network_and_boundary_without_its_script() -> None:
    report = small(steps=20)
    text = without_script(page(report))
    tags = [tag for tag, _ in Elements(text).tags]
    assert tags.count("math") > 30
    assert tags.count("mfrac") > 20
    assert text.count('class="neuron v') == 6
    assert text.count('class="edge v') == 9
    assert "class=boundary" in text
    assert f">{tiny(float(report.layers[0].a[0, 1]))}<" in text
    assert 'aria-label="layer 1, neuron 2: z = ' in text
    assert '<div class="controls" hidden>' in text


def test_the_page_of_wide_layers_is_smaller_than_two_megabytes() -> None:
    report = trace(torchnn.MLP([300, 300, 300, 1]), torch.randn(6, 300), torch.ones(6), max_differences=1, steps=2)
    for width in (8, 24):
        assert len(page(report, max_width=width).encode()) < 2_000_000


def test_an_infinite_loss_is_shown() -> None:
    report = trace(
        torchnn.MLP([2, 3, 1], "relu", "identity"), torch.ones(2), torch.ones(1), loss="mse", lr=1e9, steps=30
    )
    text = page(report)
    assert '"nan"' not in text
    assert "Infinity" not in text
    assert "use a smaller η" in terminal(report)
