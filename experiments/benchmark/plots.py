"""The two plots."""

from collections.abc import Sequence
from pathlib import Path

from ..common.plots import new_figure, save
from .contenders import COMPILE, EAGER, MICRO, OURS
from .measure import Measured
from .memory import Memory


def draw_speed(path: Path, grid: Sequence[Measured]) -> None:
    """Plot speed relative to eager by batch size: one line per network, one plot per contender."""
    figure, (all_axes,) = new_figure(3, share_y=True)
    all_sizes = dict.fromkeys(measured.point.sizes for measured in grid)
    for axes, name in zip(all_axes, (OURS, COMPILE, MICRO), strict=True):
        axes.axhline(1.0, color="grey", linestyle=":")
        for colour, sizes in enumerate(all_sizes):
            line = [m for m in grid if m.point.sizes == sizes and name in m.names]
            if line:
                batches, ratios = [m.point.batch for m in line], [m.ratio(name) for m in line]
                axes.plot(batches, ratios, f"C{colour}o-", label="-".join(map(str, sizes)))
        axes.set_xscale("log", base=2)
        axes.set(xlabel="batch", title=name)
    all_axes[0].set_ylabel("times as fast as eager")
    figure.legend(*all_axes[0].get_legend_handles_labels(), loc="outside right upper", fontsize="small")
    save(figure, path)


def draw_memory(path: Path, memory: Sequence[Memory]) -> None:
    """Plot extra memory and time of a step by batch size."""
    figure, ((of_memory, of_time),) = new_figure(2)
    for name in (OURS, EAGER):
        line = [one for one in memory if one.contender == name]
        batches = [one.batch for one in line]
        # A logarithmic axis has no zero; less than a page means that nothing was allocated.
        of_memory.plot(batches, [max(one.extra_bytes, 4096) / 2**20 for one in line], marker="o", label=name)
        of_time.plot(batches, [one.seconds for one in line], marker="o", label=name)
    of_memory.set(xlabel="batch", ylabel="MiB", title="memory beyond inputs and results")
    of_time.set(xlabel="batch", ylabel="s", title="time of a step")
    for axes in (of_memory, of_time):
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.legend()
    save(figure, path)
