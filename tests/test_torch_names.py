"""Private names of torch occur in one file only, and without them the fallbacks give the same answers."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import Function, forward_ad

import torchnn
import torchnn.check
from torchnn import _torch
from torchnn.functional import _whole_network

PACKAGE = Path(torchnn.__file__).parent
# Parts that use torch only; the others use private names of Lightning, which have a file of their own.
CORE = ("ops", "functional", "modules", "check", "explain", "convert.py")
NAMED_TUPLE = {"_replace", "_asdict", "_fields", "_make"}
PRIVATE = re.compile(r"_[a-zA-Z]")


def private_imports(tree: ast.AST) -> Iterator[str]:
    """Imports of torch's that pass through a private name, and private attributes of torch's modules."""
    of_torch = {"torch"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.startswith("torch.") and "._" in a.name)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in ("torch", "functorch"):
            names = [f"{node.module}.{a.name}" for a in node.names]
            yield from (name for name in names if "._" in name)
            of_torch |= {a.asname or a.name for a in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and PRIVATE.match(node.attr):
            base: ast.expr = node.value
            while isinstance(base, ast.Attribute):
                base = base.value
            if isinstance(base, ast.Name) and base.id in of_torch and node.attr not in NAMED_TUPLE:
                yield ast.unparse(node)


def private_attributes(tree: ast.AST) -> Iterator[str]:
    """Private attributes of objects that are not the file's own."""
    own = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and PRIVATE.match(node.attr) and node.attr not in NAMED_TUPLE | own:
            text = ast.unparse(node)
            if text.split(".")[0] not in ("self", "cls", "os", "_torch") and not text.startswith("super()"):
                yield text
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr"):
            yield from (
                str(a.value) for a in node.args[1:2] if isinstance(a, ast.Constant) and PRIVATE.match(str(a.value))
            )


def files(*parts: str) -> list[Path]:
    found = [
        path
        for part in parts
        for path in ([PACKAGE / part] if part.endswith(".py") else (PACKAGE / part).rglob("*.py"))
    ]
    return [path for path in found if path.name != "_torch.py"]


def test_a_private_attribute_is_found_in_any_spelling() -> None:
    for line in ("node._input_metadata", "getattr(node, '_input_metadata', None)", "hasattr(node, '_input_metadata')"):
        assert list(private_attributes(ast.parse(line))), line


@pytest.mark.parametrize(
    "line",
    [
        "from torch._dynamo.utils import counters",
        "import torch._dynamo",
        "from torch.utils._pytree import tree_leaves",
        "from torch._C import _functorch",
        "import torch\ntorch._C._get_tracing_state()",
        "from torch import nn\nnn.modules.module._has_any_global_hook()",
        "from torch.autograd import forward_ad\nforward_ad._current_level",
    ],
)
def test_a_private_name_is_found(line: str) -> None:
    assert list(private_imports(ast.parse(line)))


def test_only_one_file_uses_private_names_of_torch() -> None:
    for path in files("."):
        assert not list(private_imports(ast.parse(path.read_text()))), path
    for path in files(*CORE):
        assert not list(private_attributes(ast.parse(path.read_text()))), path


# --- the fallbacks ----------------------------------------------------------------------------------------------------


class Doubled(Function):
    """A user's Function."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Tensor:
        incoming.append(_torch.is_legacy_batched(grad_output))
        return 2 * grad_output


incoming: list[bool] = []


@torch.library.custom_op("torchnn_tests::doubled", mutates_args=())
def doubled(x: Tensor) -> Tensor:
    """A user's operator."""
    return 2 * x


def remove(name: str, patch: pytest.MonkeyPatch) -> None:
    """Take a private name away from `_torch`, as a version of torch would that does not have it."""
    old = getattr(_torch, name)
    missing = "_missing" if isinstance(old, str) else tuple("_missing" for _ in old) if isinstance(old, tuple) else None
    patch.setattr(_torch, name, missing)


def in_a_transform(ask: Callable[[], Any]) -> list[Any]:
    """The answers outside of transforms, inside one, inside two, and in forward mode."""
    answers, x = [ask()], torch.ones(2)

    def asking(t: Tensor) -> Tensor:
        answers.append(ask())
        return 2 * t.sum()

    torch.func.grad(asking)(x)
    torch.func.vmap(asking)(x[None])
    torch.func.jvp(asking, (x,), (x,))
    torch.func.grad(torch.func.grad(asking))(x[0])
    with forward_ad.dual_level():
        answers.append(ask())
    return [*answers, ask()]


def under_autocast(ask: Callable[[str], bool]) -> list[bool]:
    answers = [ask("cpu"), ask("meta")]
    for enabled in (True, False):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            answers += [ask("cpu"), ask("cuda")]
    return answers


def batches_of_gradients() -> list[bool]:
    incoming.clear()
    x = torch.ones(2, requires_grad=True)
    y = Doubled.apply(x)  # type: ignore[no-untyped-call]
    torch.autograd.grad(y, x, torch.ones(2), retain_graph=True)
    torch.autograd.grad(y, x, torch.eye(2), is_grads_batched=True)
    return incoming.copy()


def hooks_of_modules() -> list[Any]:
    def hook(*_: Any) -> None:
        return None

    layer = nn.Linear(2, 2)
    answers: list[Any] = [list(_torch.global_forward_hooks().values()), list(_torch.forward_hooks(layer).values())]
    with_hook = nn.modules.module.register_module_forward_hook(hook)
    layer.register_forward_hook(hook)
    answers += [len(_torch.global_forward_hooks()), len(_torch.forward_hooks(layer))]
    with_hook.remove()
    return answers


def children() -> list[Any]:
    layer = nn.Linear(2, 2)
    twice = nn.Sequential(layer, nn.Sequential(nn.Tanh()), layer)
    return [(name, type(child)) for name, child in _torch.children_of(twice).items()]


def parameters() -> list[Any]:
    layer = nn.Linear(2, 2)
    return [list(_torch.own_parameters(module)) for module in (layer, nn.Sequential(layer))]


def function_of_a_node() -> Any:
    return _torch.function_of(Doubled.apply(torch.ones(1, requires_grad=True)).grad_fn)  # type: ignore[no-untyped-call]


def results() -> list[Any]:
    """The results, as numbers, of every path of the library that uses a private name."""
    torch.manual_seed(0)
    network, x, y = torchnn.MLP([128, 128, 1]), torch.randn(1024, 128), torch.rand(1024, 1)
    steps = []
    for _ in range(2):  # the second time the plan of the first is known
        network.zero_grad()
        network(x, y).backward()
        steps.append([float(p.grad.norm()) for p in network.parameters() if p.grad is not None])
    z = torch.linspace(-2, 2, 5, dtype=torch.double)

    def slope(t: Tensor) -> Tensor:
        return torch.func.jvp(torchnn.functional.sigmoid, (t,), (torch.ones_like(t),))[1]  # type: ignore[no-any-return]

    first = slope(z)
    second = torch.func.jvp(slope, (z,), (torch.ones_like(z),))[1]
    joined = torchnn.convert(nn.Sequential(nn.Linear(2, 2), nn.Tanh()), join=True)
    saturated = torchnn.MLP([1, 1], bias=False)
    saturated.layers[0].weight.data.fill_(50)  # type: ignore[operator]
    loss = saturated(torch.ones(1, 1), torch.zeros(1, 1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        dtype = str(network(x).dtype)
    return [steps, first.tolist(), second.tolist(), loss.item(), dtype, str(torchnn.revert(joined))]


def assert_same(given: list[Any], expected: list[Any]) -> None:
    for a, b in zip(flat(given), flat(expected), strict=True):
        assert a == b if isinstance(b, str) else a == pytest.approx(b, rel=1e-5)


def flat(values: list[Any]) -> list[Any]:
    return [n for part in values for n in (flat(part) if isinstance(part, list) else [part])]


LEAVES = [1, (torch.ones(()), [None, {"b": 2, "a": (3, [])}], "text")]

EXACT: dict[str, Callable[[], Any]] = {
    "_transforms_are_active": lambda: in_a_transform(_torch.transforms_are_active),
    "_forward_level": lambda: in_a_transform(_torch.forward_mode_is_active),
    "_any_autocast": lambda: under_autocast(_torch.autocast_is_on),
    "_is_legacy_batched": batches_of_gradients,
    "_tree_leaves": lambda: _torch.tree_leaves(LEAVES),
    "_forward_class": function_of_a_node,
    "_global_forward_hooks": hooks_of_modules,
    "_module_hooks": hooks_of_modules,
    "_module_children": children,
    "_module_parameters": parameters,
    "_qualified_name": lambda: _torch.name_of_custom_op(doubled),
}
# The fallbacks of these are cautious: what the library computes stays the same.
CAUTIOUS = (
    *("_interpreters", "_transform_type", "_num_dispatch_modes", "_tensor_guards", "_linear_pointwise"),
    *("_has_any_global_hook", "_used_autocast"),
)
LATER = ("_input_metadata",)  # see the tests of the check below


@pytest.mark.parametrize("name", EXACT)
def test_a_fallback_gives_the_answer_of_the_private_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = EXACT[name]()
    remove(name, monkeypatch)
    assert EXACT[name]() == expected


@pytest.mark.parametrize("name", [*EXACT, *CAUTIOUS])
def test_the_library_computes_the_same_without_a_private_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = results()
    monkeypatch.setattr(_whole_network, "LAST_PLANS", {})
    _whole_network.plan_of.cache_clear()
    remove(name, monkeypatch)
    assert_same(results(), expected)


def test_every_private_name_is_in_a_test() -> None:
    found = {n for n, value in vars(_torch).items() if n.startswith("_") and not n.startswith("__")}
    functions = {n for n in found if getattr(getattr(_torch, n), "__module__", None) == "torchnn._torch"}
    assert found - functions == {*EXACT, *CAUTIOUS, *LATER}


WITHOUT_ANY = """
import importlib, json, pytest
import torch, torch.testing  # everything of torch's own
real = importlib.import_module
def import_module(name, package=None):
    if name.startswith(("torch._", "torch.utils._", "torch.nn.modules.module")):
        raise ImportError(name)
    return real(name, package)
importlib.import_module = import_module
import torchnn
importlib.import_module = real
from tests import test_torch_names as names
from torchnn import _torch
assert _torch._transforms_are_active is _torch._tensor_guards is _torch._has_any_global_hook is None
for name in (*names.EXACT, *names.CAUTIOUS):
    names.remove(name, pytest.MonkeyPatch())
print(json.dumps(names.results()))
"""


def test_without_any_private_name_the_library_imports_and_computes_the_same() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_ANY], capture_output=True, text=True, cwd=PACKAGE.parent)
    assert done.returncode == 0, done.stderr
    assert_same(json.loads(done.stdout), results())


# --- the check --------------------------------------------------------------------------------------------------------


def breaks_the_graph(z: Tensor) -> Tensor:
    doubled = z * 2
    torch._dynamo.graph_break()
    return doubled + 1


def test_graph_breaks_are_found_without_the_counters(monkeypatch: pytest.MonkeyPatch) -> None:
    for private_name in (_torch.private_name, lambda *_: None):
        monkeypatch.setattr(_torch, "private_name", private_name)
        torch.compiler.reset()
        assert _torch.graph_break_reasons(breaks_the_graph, [torch.ones(2)])
        assert not _torch.graph_break_reasons(torch.sigmoid, [torch.ones(2)])


def test_a_check_says_what_this_version_of_torch_cannot_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_torch, "private_name", lambda *_: None)
    remove("_input_metadata", monkeypatch)

    def make_inputs(dtype: torch.dtype, device: torch.device, generator: torch.Generator) -> tuple[Tensor, ...]:
        return (torch.randn(5, 3, dtype=dtype, device=device, generator=generator),)

    only = ["fake_tensors", "peak_memory", "shapes"]
    report = torchnn.check.check_backward(torchnn.functional.sigmoid, torch.sigmoid, make_inputs, only=only)
    assert report.ok, report
    text = str(report)
    assert "has no fake tensors" in text
    assert "has no way to watch the operations of a backward" in text
