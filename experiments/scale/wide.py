"""A wide layer on two processes with FSDP2: the share that each process holds, and the difference from one process."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, multiprocessing, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import torchnn

from ..common.results import Figure, Row, numbers, where

PROCESSES, STEPS, ROWS, FEATURES, LR = 2, 3, 512, 256, 1e-3
KINDS = ("parameters", "gradients", "optimiser state")


def measure_wide(width: int) -> list[dict[str, object]]:
    """Bytes of each process for parameters, gradients and the state of AdamW, after some steps in float64.

    The network is sharded as one unit, whose loss runs in one pass, and layer by layer.
    """
    one_process = trained(network(width), slice(None))
    rows = []
    for way in ("network", "layers"):
        with tempfile.TemporaryDirectory() as folder:
            starter: Any = multiprocessing  # missing from its type annotations
            starter.start_processes(one_process, (width, way, folder), nprocs=PROCESSES, start_method="spawn")
            found = [torch.load(Path(folder, f"{rank}.pt"), weights_only=True) for rank in range(PROCESSES)]
        differences = [
            float((a - b).norm() / b.norm()) for a, b in zip(found[0]["parameters"], whole(one_process), strict=True)
        ]
        for kind, tensors in held(*one_process):
            everything = num_bytes(tensors)
            for rank, one in enumerate(found):
                rows.append(
                    {"sharded": way, "kind": kind, "rank": rank, "bytes": one["bytes"][kind], "alone": everything}
                    | {"share": f"{one['bytes'][kind] / everything:.6f}", "difference": f"{max(differences):.1e}"}
                )
    return rows


def network(width: int) -> torchnn.MLP:
    torch.manual_seed(0)
    return torchnn.MLP([FEATURES, width, FEATURES, 1], dtype=torch.float64)


def trained(model: nn.Module, rows: slice) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Train some steps of AdamW on part of the same batch."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(ROWS, FEATURES, generator=generator, dtype=torch.float64)
    y = (x[:, :1] > 0).double()
    optimiser = torch.optim.AdamW(model.parameters(), LR)
    for _ in range(STEPS):
        optimiser.zero_grad()
        model(x[rows], y[rows]).backward()
        optimiser.step()
    return model, optimiser


def held(model: nn.Module, optimiser: torch.optim.Optimizer) -> Iterator[tuple[str, list[Tensor]]]:
    parameters = list(model.parameters())
    states = [t for p in parameters for t in optimiser.state[p].values() if t.dim() > 0]
    yield from zip(KINDS, (parameters, [p.grad for p in parameters if p.grad is not None], states), strict=True)


def num_bytes(tensors: list[Tensor]) -> int:
    """Bytes of these tensors that this process holds."""
    return sum(t.to_local().nbytes if hasattr(t, "to_local") else t.nbytes for t in tensors)


def whole(trained: tuple[nn.Module, torch.optim.Optimizer]) -> list[Tensor]:
    parameters: list[Any] = [p.detach() for p in trained[0].parameters()]
    return [p.full_tensor() if hasattr(p, "full_tensor") else p for p in parameters]


def one_process(rank: int, width: int, way: str, folder: str) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    store = Path(folder, "store").as_uri()
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=PROCESSES)
    model: Any = network(width)
    mesh = init_device_mesh("cpu", (PROCESSES,))
    for layer in model.layers if way == "layers" else ():
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    done = trained(model, slice(rank, None, PROCESSES))
    found = {"bytes": {kind: num_bytes(tensors) for kind, tensors in held(*done)}, "parameters": whole(done)}
    torch.save(found, Path(folder, f"{rank}.pt"))
    distributed.barrier()
    distributed.destroy_process_group()


def wide_figures(rows: list[Row]) -> list[Figure]:
    shares = "; ".join(f"{max(numbers(where(rows, kind=kind), 'share')):.3f}" for kind in KINDS)
    return [
        Figure(f"largest share of {', '.join(KINDS)} that one of two processes holds, FSDP2", "0.500 each", shares),
        Figure(
            "relative difference of the weights between two processes and one, after three steps, float64",
            "≤ 1e−12",
            f"{max(numbers(rows, 'difference')):.0e}",
        ),
    ]
