"""Two processes, as DistributedDataParallel runs them, against one."""

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
from torchnn.check.subject import Subject
from torchnn.check.tensors import Call, Inputs, NotApplicable, outputs_of, weighted_sum
from torchnn.check.variants import with_rows

WORLD = 2
TIMEOUT = 60  # seconds


class Trained(nn.Module):
    """A model around the call: the inputs that the processes share are its parameters, and a scale of the others."""

    def __init__(self, call: Call, inputs: Inputs, shared: Sequence[int]) -> None:
        super().__init__()
        self.call = call
        self.shared = list(shared)
        first = next(t for t in inputs if isinstance(t, Tensor) and t.requires_grad)
        self.scale = nn.Parameter(torch.ones((), dtype=first.dtype))
        self.others = nn.ParameterList([inputs[i].detach().clone() for i in shared])

    def forward(self, *inputs: Any) -> Tensor:
        given = [t * self.scale if isinstance(t, Tensor) and t.requires_grad else t for t in inputs]
        for i, parameter in zip(self.shared, self.others, strict=True):
            given[i] = parameter
        outputs = outputs_of(self.call, tuple(given))
        return weighted_sum(outputs, [torch.ones_like(t) for t in outputs])


@is_property(
    cause="Gradients reach DistributedDataParallel wrong, or past it.",
    mend="Let the gradients of parameters come out of backward, and keep no state between processes.",
    is_slow=True,
    needs=(),
)
def two_processes(subject: Subject, findings: Findings) -> None:
    """Every second row on each process of gloo; their mean gradient against that of the same rows here."""
    if "fork" not in multiprocessing.get_all_start_methods() or not distributed.is_gloo_available():
        raise NotApplicable("it takes fork and gloo")
    if torch.device(subject.device).type != "cpu":
        raise NotApplicable("it is made on the CPU only")
    for inputs in subject.cases():
        halves = [with_rows(subject.reference, inputs, lambda t, rank=rank: t[rank::WORLD]) for rank in range(WORLD)]  # type: ignore[misc]
        if any(half is None for half in halves):
            raise NotApplicable("the reference does not take every second row alone")
        parts = [half for half in halves if half is not None]
        shared = [
            i
            for i, t in enumerate(inputs)
            if isinstance(t, Tensor) and t.requires_grad and parts[0][i].shape == t.shape
        ]
        expected = mean([gradients_alone(Trained(subject.call, inputs, shared), part) for part in parts])
        given = in_two_processes(subject.call, inputs, shared, parts)
        findings.compare("averaged over two processes, gradient", given, expected, inputs)


def mean(each: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    return [torch.stack(grads).mean(0) for grads in zip(*each, strict=True)]


def gradients_alone(model: nn.Module, inputs: Inputs) -> list[Tensor]:
    model(*inputs).backward()
    return [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]


def in_two_processes(call: Call, inputs: Inputs, shared: Sequence[int], parts: Sequence[Inputs]) -> list[Tensor]:
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        arguments = call, inputs, shared, parts, folder
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forking a process that has threads
            processes = [context.Process(target=run, args=(rank, *arguments), daemon=True) for rank in range(WORLD)]
            for process in processes:
                process.start()
        try:
            for process in processes:
                process.join(TIMEOUT)
        finally:
            late = [rank for rank, process in enumerate(processes) if process.is_alive()]
            for process in processes:
                process.kill()
        if late:
            raise RuntimeError(f"process {late[0]} of {WORLD} was not done after {TIMEOUT} s")
        for rank, process in enumerate(processes):
            if (message := Path(folder, f"{rank}.txt")).exists():
                raise RuntimeError(message.read_text())
            if process.exitcode:
                raise RuntimeError(f"process {rank} of {WORLD} ended with exit status {process.exitcode}")
        return list(torch.load(Path(folder, "gradients.pt"), weights_only=True))


def run(rank: int, call: Call, inputs: Inputs, shared: Sequence[int], parts: Sequence[Inputs], folder: str) -> None:
    """One of the processes."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # gloo and DDP talk; what goes wrong is written to a file
    torch.set_num_threads(1)
    try:
        store = Path(folder, "store").as_uri()
        distributed.init_process_group(
            "gloo", init_method=store, rank=rank, world_size=WORLD, timeout=timedelta(seconds=TIMEOUT)
        )
        model = DistributedDataParallel(Trained(call, inputs, shared), find_unused_parameters=True)
        grads = gradients_alone(model, parts[rank])
        if rank == 0:
            torch.save(grads, Path(folder, "gradients.pt"))
        distributed.destroy_process_group()
    except Exception as error:
        Path(folder, f"{rank}.txt").write_text(f"{type(error).__name__}: {error}")
    finally:
        os._exit(0)  # nothing of the parent's is to be closed or flushed a second time
