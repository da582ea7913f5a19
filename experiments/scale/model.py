"""A model of the time of a training step on k processes, from a few constants of the machine and of the wire.

Every process takes its own batch through the whole network, and a ring all-reduce averages the gradients:
2 (k − 1) messages one after the other, each with 1/k of the bytes.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

BYTES_OF_A_NUMBER = 4  # float32
FIRST_BUCKET, BUCKET = 2**20, 25 * 2**20  # bytes that DistributedDataParallel collects before it sends


@dataclass(frozen=True)
class Wire:
    """The connection between processes.

    Attributes:
        name: name for tables and plots.
        bandwidth: bytes per second that a process can send while it receives at the same rate.
        latency: seconds that a message without bytes takes.
    """

    name: str
    bandwidth: float
    latency: float

    def all_reduce(self, num_bytes: float, processes: int) -> float:
        """Seconds of a ring all-reduce."""
        return 2 * (processes - 1) * (self.latency + num_bytes / (processes * self.bandwidth))


@dataclass(frozen=True)
class Layer:
    """Floating-point operations per row, and bytes of the gradient, of a layer."""

    forward: int
    backward: int
    num_bytes: int


def layers_of(sizes: Sequence[int]) -> list[Layer]:
    """The layers of a network: 2 n m operations for z, as many for ∂J/∂W, and for ∂J/∂a in all layers but the first."""
    return [
        Layer(2 * n * m, (2 if i == 0 else 4) * n * m, BYTES_OF_A_NUMBER * (n * m + m))
        for i, (n, m) in enumerate(pairwise(sizes))
    ]


def operations(sizes: Sequence[int]) -> int:
    """Floating-point operations of the matrix products for the loss and gradients of one row."""
    return sum(layer.forward + layer.backward for layer in layers_of(sizes))


def num_bytes(sizes: Sequence[int]) -> int:
    """Bytes of all gradients, which an all-reduce transfers."""
    return sum(layer.num_bytes for layer in layers_of(sizes))


def buckets_of(sizes: Sequence[int], first: int = FIRST_BUCKET, later: int = BUCKET) -> list[list[int]]:
    """Groups of layers whose gradients are sent together once they fill a bucket, the last layer first."""
    layers, held = layers_of(sizes), 0
    buckets: list[list[int]] = [[]]
    for number in range(len(layers) - 1, -1, -1):
        buckets[-1].append(number)
        held += layers[number].num_bytes
        if held >= (first if len(buckets) == 1 else later) and number > 0:
            buckets.append([])
            held = 0
    return buckets


def step_seconds(
    sizes: Sequence[int], rows: int, seconds_of_a_row: float, wire: Wire, processes: int, rows_of_last: int
) -> float:
    """Seconds of a step until every process has the mean of the gradients.

    Args:
        sizes: n[0] … n[L].
        rows: rows in the batch of each process.
        seconds_of_a_row: seconds for loss and gradients of one row, on one process.
        wire: the connection between the processes.
        processes: number of processes.
        rows_of_last: number of rows, processed last, whose backward gives the final gradients layer by layer: `rows`
            for autograd, the rows of a block for torchnn, 0 for a pass that gives all gradients at its end.
    """
    compute = rows * seconds_of_a_row
    if processes == 1:
        return compute
    layers = layers_of(sizes)
    of_operation = seconds_of_a_row / operations(sizes) * rows_of_last
    of_layers = list(accumulate((layer.backward * of_operation for layer in reversed(layers)), initial=0.0))
    start, free = compute - of_layers[-1], 0.0
    for bucket in buckets_of(sizes):
        known = start + of_layers[len(layers) - bucket[-1]]
        free = max(free, known) + wire.all_reduce(sum(layers[number].num_bytes for number in bucket), processes)
    return free


def efficiency(
    sizes: Sequence[int], rows: int, seconds_of_a_row: float, wire: Wire, processes: int, rows_of_last: int
) -> float:
    """Rows per second of a process among many, as a share of those of a single process."""
    return rows * seconds_of_a_row / step_seconds(sizes, rows, seconds_of_a_row, wire, processes, rows_of_last)


def fitted_wire(name: str, carried: Sequence[int], seconds: Sequence[float]) -> Wire:
    """Fit 2 · latency + bytes / bandwidth to measured all-reduces of two processes, by least relative squares.

    All-reduces of a single size give only a bandwidth.
    """
    if len(set(carried)) == 1:
        return Wire(name, statistics.mean(carried) / statistics.mean(seconds), 0.0)
    weights = [1 / second for second in seconds]
    a = sum(w * w for w in weights)
    b = sum(w * w * size for w, size in zip(weights, carried, strict=True))
    c = sum((w * size) ** 2 for w, size in zip(weights, carried, strict=True))
    d, e = sum(weights), sum(w * size for w, size in zip(weights, carried, strict=True))
    slope = (a * e - b * d) / (a * c - b * b)
    return Wire(name, 1 / slope, max(0.0, (d - slope * b) / (2 * a)))
