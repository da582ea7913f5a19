"""Every module can replace torch's: values, gradients, state, copies, devices, compilation and export."""

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.testing._internal.common_utils import noncontiguous_like

from .catalogue import HALF_DTYPES, outcome, unless_nearer
from .module_catalogue import Module, Pair, each_module

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


# --- values and gradients ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@each_module
def test_value_dtype_and_memory_format_are_torchs(module: Module, dtype: torch.dtype) -> None:
    for pair in module.pairs(torch.float32, requires_grad=False):
        cast = pair.with_inputs(lambda t: t.to(dtype))
        expected, actual = (cast.call(made.to(dtype)) for made in (pair.theirs, pair.ours))
        assert actual.stride() == expected.stride()
        if dtype in HALF_DTYPES:
            truth = cast.with_inputs(lambda t: t.double()).call(pair.theirs.double())
            expected = unless_nearer(expected, actual, truth)
        torch.testing.assert_close(actual, expected)


@each_module
def test_value_is_that_of_torchs_reference_function(module: Module) -> None:
    generate = module.info.module_inputs_func
    for sample in generate(module.info, "cpu", torch.float64, False, training=True):
        if sample.reference_fn is not None:
            constructor, forward = sample.constructor_input, sample.forward_input
            ours = module.ours(*constructor.args, **constructor.kwargs).to(torch.float64)
            expected = sample.reference_fn(ours, *forward.args, **forward.kwargs)
            torch.testing.assert_close(ours(*forward.args, **forward.kwargs), expected)


@each_module
def test_gradients_of_inputs_and_parameters_are_torchs(module: Module) -> None:
    for pair in module.pairs():
        grad_output = torch.randn_like(pair.call(pair.theirs))
        torch.testing.assert_close(pair.gradients(pair.ours, grad_output), pair.gradients(pair.theirs, grad_output))


def _strided(t: Tensor) -> Tensor:
    strided: Tensor = noncontiguous_like(t)
    return strided


@each_module
def test_non_contiguous_inputs_give_the_gradients_of_contiguous_ones(module: Module) -> None:
    for pair in module.pairs():
        grad_output = torch.randn_like(pair.call(pair.ours))
        strided = pair.with_inputs(_strided)
        torch.testing.assert_close(strided.call(pair.ours), pair.call(pair.ours))
        actual = strided.gradients(pair.ours, _strided(grad_output))
        torch.testing.assert_close(actual, pair.gradients(pair.ours, grad_output))


def _as_function(pair: Pair) -> tuple[Callable[..., Tensor], tuple[Tensor, ...]]:
    """The module's call as a function of the inputs that require gradients, then of its parameters."""
    inputs, names = pair.inputs, [name for name, _ in pair.ours.named_parameters()]

    def function(*values: Tensor) -> Tensor:
        given = dict(zip(map(id, inputs), values, strict=False))
        parameters = dict(zip(names, values[len(inputs) :], strict=True))
        call = pair.with_inputs(lambda t: given.get(id(t), t))
        output: Tensor = torch.func.functional_call(pair.ours, parameters, call.args, call.kwargs)
        return output

    return function, (*inputs, *pair.ours.parameters())


@each_module
def test_gradcheck_and_gradgradcheck_of_inputs_and_parameters(module: Module) -> None:
    for pair in module.pairs():
        function, values = _as_function(pair)
        fast_mode = sum(value.numel() for value in values) > 60
        assert gradcheck(function, values, fast_mode=fast_mode, check_forward_ad=True, check_batched_grad=True)
        assert gradgradcheck(function, values, fast_mode=fast_mode)


# --- state, representation, copies ------------------------------------------------------------------------------------


@each_module
def test_state_dict_has_torchs_keys_and_loads_into_torchs_module(module: Module) -> None:
    for pair in module.pairs():
        assert list(pair.ours.state_dict()) == list(pair.theirs.state_dict())
        pair.theirs.load_state_dict(pair.ours.state_dict())
        assert [name for name, _ in pair.ours.named_parameters()] == [
            name for name, _ in pair.theirs.named_parameters()
        ]
        assert [name for name, _ in pair.ours.named_buffers()] == [name for name, _ in pair.theirs.named_buffers()]


@each_module
def test_repr_shows_what_torchs_shows(module: Module) -> None:
    for pair in module.pairs():
        shown = repr(pair.ours)
        assert shown.startswith(f"{module}(")
        assert all(part in shown for part in pair.theirs.extra_repr().split(", "))


def _pickled(module: nn.Module) -> nn.Module:
    copied: nn.Module = pickle.loads(pickle.dumps(module))
    return copied


def _saved(module: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    copied: nn.Module = torch.load(file, weights_only=False)
    return copied


@pytest.mark.parametrize("copied", [copy.deepcopy, _pickled, _saved], ids=["deepcopy", "pickle", "torch.save"])
@each_module
def test_copy_is_an_equal_but_separate_module(module: Module, copied: Callable[[nn.Module], nn.Module]) -> None:
    for pair in module.pairs():
        clone = copied(pair.ours)
        assert type(clone) is module.ours
        assert repr(clone) == repr(pair.ours)
        torch.testing.assert_close(pair.call(clone), pair.call(pair.ours), rtol=0, atol=0)
        storages = {t.data_ptr() for t in pair.ours.state_dict().values()}
        assert storages.isdisjoint(t.data_ptr() for t in clone.state_dict().values())


@each_module
def test_a_copy_of_a_used_module_still_trains(module: Module) -> None:
    for pair in module.pairs():
        grad_output = torch.randn_like(pair.call(pair.ours))
        expected = pair.gradients(pair.ours, grad_output)
        torch.testing.assert_close(pair.gradients(copy.deepcopy(pair.ours), grad_output), expected)


# --- dtypes and devices -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@each_module
def test_to_dtype_casts_parameters_and_buffers(module: Module, dtype: torch.dtype) -> None:
    for pair in module.pairs():
        assert all(t.dtype == dtype for t in pair.ours.to(dtype).state_dict().values())


@each_module
def test_factory_arguments_are_torchs(module: Module) -> None:
    """Device and dtype reach every parameter; a module without parameters refuses them, as torch's does."""
    for pair in module.pairs():
        for factory in ({"dtype": torch.float64}, {"device": "meta"}, {"device": "meta", "dtype": torch.bfloat16}):
            arguments = {**pair.constructor_kwargs, **factory}
            expected = outcome(module.theirs, *pair.constructor_args, **arguments)
            actual = outcome(module.ours, *pair.constructor_args, **arguments)
            assert _parameters(actual) == _parameters(expected)


def _parameters(made: Any) -> Any:
    if isinstance(made, nn.Module):
        return [(name, p.shape, p.dtype, p.device, p.requires_grad) for name, p in made.named_parameters()]
    return type(made)


@each_module
def test_meta_device_and_back(module: Module) -> None:
    for pair in module.pairs():
        meta = copy.deepcopy(pair.ours).to("meta")
        on_meta = pair.with_inputs(lambda t: t.to("meta"))
        output, expected = on_meta.call(meta), pair.call(pair.ours)
        assert (output.is_meta, output.shape, output.dtype) == (True, expected.shape, expected.dtype)
        back = meta.to_empty(device="cpu")
        back.load_state_dict(pair.ours.state_dict())
        torch.testing.assert_close(pair.call(back), expected)


@each_module
def test_default_device_and_dtype_contexts_are_followed(module: Module) -> None:
    for pair in module.pairs():
        with torch.device("meta"):
            made = module.ours(*pair.constructor_args, **pair.constructor_kwargs)
        assert all(parameter.is_meta for parameter in made.parameters())


@each_module
def test_same_seed_gives_torchs_initial_parameters(module: Module) -> None:
    for pair in module.pairs():
        states = []
        for made in (module.ours, module.theirs):
            torch.manual_seed(1)
            states.append(made(*pair.constructor_args, **pair.constructor_kwargs).state_dict())
        torch.testing.assert_close(*states, rtol=0, atol=0)


# --- compilation, export, transforms ----------------------------------------------------------------------------------


@each_module
def test_compiled_module_has_the_values_and_gradients_of_eager(module: Module) -> None:
    """With the constructor that has most options; `test_compile` tests all options of the functions."""
    pair = list(module.pairs(torch.float32))[-1]
    torch._dynamo.reset()
    compiled: Any = torch.compile(pair.ours, fullgraph=True, backend="aot_eager", dynamic=False)
    grad_output = torch.randn_like(pair.call(pair.ours))
    torch.testing.assert_close(pair.call(compiled), pair.call(pair.ours))
    expected = pair.gradients(pair.ours, grad_output)
    torch.testing.assert_close(pair.gradients(compiled, grad_output), expected)


@each_module
@pytest.mark.parametrize("strict", [False, True], ids=["non-strict", "strict"])
def test_exported_program_has_the_values_of_eager(module: Module, strict: bool) -> None:
    pairs = list(module.pairs(torch.float32, requires_grad=False))
    for pair in (pairs[0], pairs[-1]):
        torch._dynamo.reset()
        exported = torch.export.export(pair.ours, pair.args, pair.kwargs, strict=strict)
        torch.testing.assert_close(pair.call(exported.module()), pair.call(pair.ours))


@each_module
def test_per_example_gradients_by_vmap_of_grad_are_torchs(module: Module) -> None:
    for pair in module.pairs():
        names = [name for name, _ in pair.ours.named_parameters()]
        batch = pair.with_inputs(lambda t: torch.stack([t.detach(), t.detach() / 2]))
        rows = [t for t in (*batch.args, *batch.kwargs.values()) if isinstance(t, Tensor)]

        def loss(called: nn.Module, pair: Pair = pair, names: list[str] = names) -> Callable[..., Tensor]:
            def of(parameters: list[Tensor], *values: Tensor) -> Tensor:
                state = dict(zip(names, parameters, strict=True))
                output: Tensor = torch.func.functional_call(called, state, values)
                return output.square().sum()

            return of

        for argument in range(len(rows) + 1):
            if argument == 0 and not names:
                continue
            in_dims = (None, *(0 for _ in rows))
            expected, actual = (
                torch.func.vmap(torch.func.grad(loss(called), argument), in_dims)(list(called.parameters()), *rows)
                for called in (pair.theirs, pair.ours)
            )
            torch.testing.assert_close(actual, expected)


# --- autocast ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("copied", [copy.deepcopy, _pickled], ids=["deepcopy", "pickle"])
@each_module
def test_a_copy_under_autocast_has_torchs_dtype(module: Module, copied: Callable[[nn.Module], nn.Module]) -> None:
    for pair in module.pairs(torch.float32):
        with torch.autocast("cpu", torch.bfloat16):
            expected, actual = pair.call(pair.theirs), pair.call(copied(pair.ours))
        assert actual.dtype == expected.dtype
        assert str(module) != "Dense" or actual.dtype == torch.bfloat16
        gradients = pair.gradients(pair.ours, torch.ones_like(expected, dtype=torch.float32))
        assert all(gradient.dtype == torch.float32 for gradient in gradients)
