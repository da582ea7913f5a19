"""Two processes with DistributedDataParallel compute the same gradients as one process."""

import multiprocessing
import os
import tempfile
import warnings
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from torchnn.check.findings import Findings, is_property
from torchnn.check.gradients import Call, Inputs, NotApplicable, outputs_of, positions_requiring_grad, weighted_outputs
from torchnn.check.input_variants import with_rows
from torchnn.check.subject import Subject

WORLD = 2
PROCESS_TIMEOUT = 60  # seconds


class ModelAroundCall(nn.Module):
    """A model around the call. Its parameters are the inputs that have no rows, and a scale for the others.

    Args:
        call: the function to check.
        inputs: of a call with all rows.
        shared: positions of the inputs that are the same in both processes.
    """

    def __init__(self, call: Call, inputs: Inputs, shared: Sequence[int]) -> None:
        super().__init__()
        self.call = call
        self.shared = list(shared)
        first = next(t for t in inputs if isinstance(t, Tensor) and t.requires_grad)
        self.scale = nn.Parameter(torch.ones((), dtype=first.dtype))
        self.shared_inputs = nn.ParameterList([inputs[i].detach().clone() for i in shared])

    def forward(self, *inputs: Any) -> Tensor:
        given = [t * self.scale if isinstance(t, Tensor) and t.requires_grad else t for t in inputs]
        for i, parameter in zip(self.shared, self.shared_inputs, strict=True):
            given[i] = parameter
        outputs = outputs_of(self.call, tuple(given))
        return weighted_outputs(outputs, [torch.ones_like(t) for t in outputs])


@is_property(
    cause="DistributedDataParallel receives wrong gradients, or they bypass it.",
    fix="Return the gradients of parameters from backward, without averaging them over processes.",
    is_slow=True,
    needs=(),
)
def two_processes(subject: Subject, findings: Findings) -> None:
    """Each of two gloo processes takes every second row; their mean gradient equals that computed in one process."""
    if "fork" not in multiprocessing.get_all_start_methods() or not distributed.is_gloo_available():
        raise NotApplicable("it needs a system that can fork and a torch built with gloo")
    if torch.device(subject.device).type != "cpu":
        raise NotApplicable("it runs on the CPU only")
    for inputs in subject.cases():
        halves = [with_rows(subject.reference, inputs, lambda t, rank=rank: t[rank::WORLD]) for rank in range(WORLD)]  # type: ignore[misc]
        if any(half is None for half in halves):
            raise NotApplicable("the reference cannot be called with every second row only")
        parts = [half for half in halves if half is not None]
        shared = [i for i in positions_requiring_grad(inputs) if parts[0][i].shape == inputs[i].shape]
        expected = mean([parameter_gradients(ModelAroundCall(subject.call, inputs, shared), part) for part in parts])
        given = in_two_processes(subject.call, inputs, shared, parts)
        findings.compare("gradient", given, expected, inputs, "averaged over two processes")


def mean(each: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    return [torch.stack(grads).mean(0) for grads in zip(*each, strict=True)]


def parameter_gradients(model: nn.Module, inputs: Inputs) -> list[Tensor]:
    """Run forward and backward once, and return the gradients of the parameters."""
    model(*inputs).backward()
    return [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]


def in_two_processes(call: Call, inputs: Inputs, shared: Sequence[int], parts: Sequence[Inputs]) -> list[Tensor]:
    """The averaged gradients of the first process.

    Raises:
        RuntimeError: a process failed or took too long.
    """
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        arguments = call, inputs, shared, parts, folder
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # about forking a process that has threads
            processes = [
                context.Process(target=run_process, args=(rank, *arguments), daemon=True) for rank in range(WORLD)
            ]
            for process in processes:
                process.start()
        try:
            for process in processes:
                process.join(PROCESS_TIMEOUT)
        finally:
            late = [rank for rank, process in enumerate(processes) if process.is_alive()]
            for process in processes:
                process.kill()
        if late:
            raise RuntimeError(f"process {late[0]} of {WORLD} did not finish within {PROCESS_TIMEOUT} s")
        for rank, process in enumerate(processes):
            if (message := Path(folder, f"{rank}.txt")).exists():
                raise RuntimeError(message.read_text())
            if process.exitcode:
                raise RuntimeError(f"process {rank} of {WORLD} exited with status {process.exitcode}")
        return list(torch.load(Path(folder, "gradients.pt"), weights_only=True))


def run_process(
    rank: int, call: Call, inputs: Inputs, shared: Sequence[int], parts: Sequence[Inputs], folder: str
) -> None:
    """Run in one of the processes: compute the gradients, and write them or the error to a file."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # gloo and DDP print to stderr; an error goes to a file
    torch.set_num_threads(1)
    try:
        store = Path(folder, "store").as_uri()
        distributed.init_process_group(
            "gloo", init_method=store, rank=rank, world_size=WORLD, timeout=timedelta(seconds=PROCESS_TIMEOUT)
        )
        model = DistributedDataParallel(ModelAroundCall(call, inputs, shared), find_unused_parameters=True)
        grads = parameter_gradients(model, parts[rank])
        if rank == 0:
            torch.save(grads, Path(folder, "gradients.pt"))
        distributed.destroy_process_group()
    except Exception as error:
        Path(folder, f"{rank}.txt").write_text(f"{type(error).__name__}: {error}")
    finally:
        os._exit(0)  # without closing or flushing the parent's files a second time
