"""What a converted model must do exactly as before; each setting raises AssertionError if it does not."""

import copy
import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, multiprocessing, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import torchnn
from tests.compatibility.models import Case
from torchnn.convert import OURS

Setting = Callable[[Case], None]
RELATIVE, ABSOLUTE = 1e-10, 1e-12


def model_and_converted(case: Case) -> tuple[nn.Module, nn.Module]:
    """A model, and a copy of it that is converted."""
    torch.manual_seed(0)
    model = case.make()
    converted = torchnn.convert(copy.deepcopy(model))
    assert sum(type(module) in OURS.values() for module in converted.modules()) == case.num_converted
    return model, converted


def outcome(model: nn.Module, x: Tensor) -> list[Tensor]:
    """The output, and the gradient of each parameter from a random incoming one."""
    output = model(x)
    incoming = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
    parameters = list(model.parameters())
    grads = torch.autograd.grad(output, parameters, incoming, allow_unused=True, materialize_grads=True)
    return [output.detach(), *grads]


def close(given: list[Tensor], expected: list[Tensor]) -> None:
    for a, b in zip(given, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=RELATIVE, atol=ABSOLUTE)


def outputs_and_gradients(case: Case) -> None:
    model, converted = model_and_converted(case)
    x = case.inputs()
    close(outcome(converted, x), outcome(model, x))


def names_and_state(case: Case) -> None:
    """Names, keys, and a state that is loaded from one into the other and back."""
    model, converted = model_and_converted(case)
    assert [n for n, _ in model.named_modules()] == [n for n, _ in converted.named_modules()]
    assert model.state_dict().keys() == converted.state_dict().keys()
    model.load_state_dict(converted.state_dict())
    converted.load_state_dict(model.state_dict())


def reverted(case: Case) -> None:
    model, converted = model_and_converted(case)
    x = case.inputs()
    torchnn.revert(converted)
    assert [type(m) for m in converted.modules()] == [type(m) for m in model.modules()]
    for a, b in zip(outcome(converted, x), outcome(model, x), strict=True):
        assert torch.equal(a, b)


def optimiser_state(case: Case) -> None:
    """A conversion between two steps of AdamW changes nothing."""
    model, other = case.make(), case.make()
    other.load_state_dict(model.state_dict())
    x = case.inputs()
    for one, convert_after in ((model, None), (other, 1)):
        optimiser = torch.optim.AdamW(one.parameters(), 0.01)
        for step in range(4):
            optimiser.zero_grad()
            one(x).square().mean().backward()
            optimiser.step()
            if step == convert_after:
                torchnn.convert(one)
    close(list(other.parameters()), list(model.parameters()))


def compiled(case: Case) -> None:
    """One graph."""
    _, converted = model_and_converted(case)
    x = case.inputs()
    expected = outcome(converted, x)
    torch._dynamo.reset()
    whole = torch.compile(converted, fullgraph=True, backend="aot_eager")
    output = whole(x)
    incoming = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
    grads = torch.autograd.grad(
        output, list(converted.parameters()), incoming, allow_unused=True, materialize_grads=True
    )
    close([output.detach(), *grads], expected)


def onnx(case: Case) -> None:
    """Exported and run by onnxruntime, in float32."""
    import onnxruntime

    _, converted = model_and_converted(case)
    converted, x = converted.float(), case.inputs()
    x = x.float() if x.is_floating_point() else x
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        path = f"{folder}/model.onnx"
        torch.onnx.export(converted, (x,), path, dynamo=True, verbose=False)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        (given,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        torch.testing.assert_close(torch.from_numpy(given), converted(x), rtol=1e-5, atol=1e-6)


# --- two processes ----------------------------------------------------------------------------------------------------


def data_parallel(case: Case) -> None:
    in_two_processes(case, DistributedDataParallel)


def fully_sharded(case: Case) -> None:
    in_two_processes(case, sharded)


def sharded(model: nn.Module) -> nn.Module:
    """FSDP2: parameters and gradients of each child, and of the rest, are split in two."""
    mesh = init_device_mesh("cpu", (2,))
    for child in model.children():
        if any(True for _ in child.parameters()):
            fully_shard(child, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def in_two_processes(case: Case, wrap: Callable[[nn.Module], nn.Module]) -> None:
    """The mean over two processes with half of the rows each equals one process with all rows."""
    model, converted = model_and_converted(case)
    x = case.inputs()
    expected = gradients_of_mean(model, x)
    with tempfile.TemporaryDirectory() as folder:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forking a process that has threads
            processes: Any = multiprocessing  # its types leave this function out
            processes.start_processes(one_process, (converted, x, wrap, folder), nprocs=2, start_method="fork")
        given = torch.load(Path(folder, "gradients.pt"), weights_only=True)
    close(given, expected)


def gradients_of_mean(model: nn.Module, x: Tensor) -> list[Tensor]:
    for parameter in model.parameters():
        parameter.grad = None
    model(x).square().mean().backward()
    return [full(p.grad) if p.grad is not None else torch.zeros_like(full(p.detach())) for p in model.parameters()]


def full(t: Tensor) -> Tensor:
    whole: Tensor = t.full_tensor() if hasattr(t, "full_tensor") else t
    return whole


def one_process(rank: int, model: nn.Module, x: Tensor, wrap: Callable[[nn.Module], nn.Module], folder: str) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=Path(folder, "store").as_uri(), rank=rank, world_size=2)
    grads = gradients_of_mean(wrap(model), x[rank::2])
    if rank == 0:
        torch.save(grads, Path(folder, "gradients.pt"))
    distributed.barrier()
    distributed.destroy_process_group()


SETTINGS: dict[str, Setting] = {
    "outputs and gradients in float64": outputs_and_gradients,
    "names, keys and state": names_and_state,
    "reverted, bit for bit": reverted,
    "converted between two steps of AdamW": optimiser_state,
    "torch.compile, one graph": compiled,
    "ONNX, run by onnxruntime": onnx,
    "DDP on two processes": data_parallel,
    "FSDP2 on two processes": fully_sharded,
}


def table(works: Callable[[str, str], bool], models: list[str]) -> str:
    """The compatibility matrix, in Markdown."""
    lines = [f"| converted | {' | '.join(models)} |", f"|---|{'---|' * len(models)}"]
    lines += [
        f"| {setting} | {' | '.join('✓' if works(setting, model) else '–' for model in models)} |"
        for setting in SETTINGS
    ]
    return "\n".join(lines) + "\n"
