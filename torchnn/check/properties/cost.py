"""Time and memory, compared with the reference: reported, never judged."""

import gc
import statistics
import time
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from torchnn._torch import tree_leaves, watch_operations
from torchnn.check.findings import Findings, is_property
from torchnn.check.gradients import Call, Inputs, NotApplicable, gradients_of, outputs_of
from torchnn.check.subject import Subject

ROUNDS, SHORTEST = 15, 2e-3


@is_property(cause="", fix="", needs=(), is_slow=True, is_judged=False)
def time_taken(subject: Subject, findings: Findings) -> None:
    """Forward and backward in float32, alternating with the reference: medians of 15 rounds."""
    if not subject.has_reference:
        raise NotApplicable("there is no reference to compare with")
    inputs = subject.cases(torch.float32)[-1]
    steps = [step_of(call, subject, inputs) for call in (subject.call, subject.reference)]
    repeats = [max(1, int(SHORTEST / max(seconds(step, 3), 1e-9))) for step in steps]
    rounds = [[seconds(step, n) for step, n in zip(steps, repeats, strict=True)] for _ in range(ROUNDS)]
    ratio = statistics.median(ours / theirs for ours, theirs in rounds)
    median = statistics.median(ours for ours, _ in rounds)
    findings.note(f"not judged: {1e6 * median:.0f} µs for each step, {ratio:.2f} times the reference's")


def step_of(call: Call, subject: Subject, inputs: Inputs) -> Callable[[], object]:
    """A function that runs forward and backward once."""
    grad_outputs = subject.grad_outputs(outputs_of(call, inputs))
    return lambda: gradients_of(outputs_of(call, inputs), inputs, grad_outputs)


def seconds(step: Callable[[], object], times: int) -> float:
    """The mean duration of a step."""
    start = time.perf_counter()
    for _ in range(times):
        step()
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return (time.perf_counter() - start) / times


@is_property(cause="", fix="", needs=(), is_slow=True, is_judged=False)
def peak_memory(subject: Subject, findings: Findings) -> None:
    """The most bytes in use at once that a step in float32 allocated."""
    inputs = subject.cases(torch.float32)[-1]
    ours = peak_of(subject.call, subject, inputs)
    text = f"not judged: at most {ours:,} bytes at once"
    if subject.has_reference:
        text += f", for the reference {peak_of(subject.reference, subject, inputs):,}"
    findings.note(text)


def peak_of(call: Call, subject: Subject, inputs: Inputs) -> int:
    """The peak memory of one step, in bytes."""
    grad_outputs = subject.grad_outputs(outputs_of(call, inputs))
    gc.collect()
    memory = MemoryCounter(inputs)
    watch = watch_operations(memory.add_result)
    if watch is None:
        raise NotApplicable(f"torch {torch.__version__} has no way to watch the operations of a backward")
    with watch:
        gradients_of(outputs_of(call, inputs), inputs, grad_outputs)
    return memory.peak


class MemoryCounter:
    """Counts the bytes of the storages that operations have allocated and that are still in use."""

    def __init__(self, inputs: Inputs) -> None:
        self.known = {t.untyped_storage().data_ptr() for t in inputs if isinstance(t, Tensor)}
        self.now = self.peak = 0

    def add_result(self, result: Any) -> None:
        for t in tree_leaves(result):
            if isinstance(t, Tensor) and (address := t.untyped_storage().data_ptr()) and address not in self.known:
                self.add(t.untyped_storage(), address)

    def add(self, storage: torch.UntypedStorage, address: int) -> None:
        self.known.add(address)
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self.remove, address, size)

    def remove(self, address: int, size: int) -> None:
        self.known.discard(address)
        self.now -= size
