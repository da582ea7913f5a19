"""What a step on several processes costs: measured on one and two, predicted for many."""

import statistics
import warnings
from itertools import pairwise
from typing import Any

from torchnn.functional._stages import stages_of
from torchnn.functional._whole_network import rows_of_a_block

from ..benchmark.problems import FLOP_PER_SECOND, Point
from ..common.command import Experiment, Run
from ..common.errors import UnavailableError
from ..common.plots import BLUE, COLOURS, GREEN, MARKS, VERMILION, new_figure
from ..common.results import Figure, Row, Tables, numbers, where
from .model import BYTES_OF_A_NUMBER, Wire, efficiency, fitted_wire, num_bytes, operations, step_seconds
from .processes import EAGER, STAGES, WAYS, Request, measured
from .shaped import measured_on_a_wire
from .wide import measure_wide, wide_figures

WIDTHS, BATCHES = (64, 256, 1024, 4096), (1024, 4096, 16384, 65536, 262144)
SQUARE_LAYERS = 2
WORKERS = (8, 64, 1024)
# Rounded latency of a small message between two programs: sockets on Ethernet, RDMA on InfiniBand.
WIRES = (
    Wire("1 Gbit/s", 1.25e8, 5e-5),
    Wire("10 Gbit/s", 1.25e9, 3e-5),
    Wire("100 Gbit/s", 1.25e10, 5e-6),
)
LOOPBACK = "loopback"
LONG_STEP = 20  # milliseconds; the time to start an exchange, which the model ignores, is negligible in longer steps
COLOUR_OF_WAY = dict(zip(WAYS, (VERMILION, BLUE, GREEN), strict=True))


def sizes_of(width: int) -> tuple[int, ...]:
    """A network of square layers and one output."""
    return (*[width] * (SQUARE_LAYERS + 1), 1)


def rows_of_last(way: str, sizes: tuple[int, ...], rows: int) -> int:
    """The argument `rows_of_last` of `step_seconds`: rows whose backward gives the gradients layer by layer."""
    if way == EAGER:
        return rows
    parameters = [n * m * BYTES_OF_A_NUMBER for n, m in pairwise(sizes)]
    a_block = rows_of_a_block(rows, sizes, BYTES_OF_A_NUMBER, "cpu", waits=False)
    return rows if way == STAGES and rows <= a_block and len(stages_of(parameters)) > 1 else 0


def measure(
    run: Run,
    widths: tuple[int, ...] = WIDTHS,
    batches: tuple[int, ...] = BATCHES,
    most_seconds: float = 2.1,
    seconds_per_point: float = 4.0,
    gigabits: float = 1.0,
    wide: int = 16384,
) -> dict[str, list[dict[str, object]]]:
    """Time one and two processes of one thread, predict many, and shard a wide layer.

    Args:
        run: Trainer arguments and progress display.
        widths: neurons of a layer; a network has three layers of weights, two of them square, and one output.
        batches: rows in the batch of each process.
        most_seconds: a step that would take longer, at 1e11 operations per second, is skipped.
        seconds_per_point: time for each width and batch, spent on 3 to 15 rounds.
        gigabits: gigabits per second, in each direction, of a wire that the kernel slows down; needs root.
        wide: neurons of the layer that two processes share.
    """
    if run.trainer_args:
        raise UnavailableError("scale starts its own processes: leave out the --trainer arguments.")
    rows: list[dict[str, Any]] = []
    for width in widths:
        points = [Point(sizes_of(width), batch) for batch in batches]
        points = [p for p in points if operations(p.sizes) * p.batch / FLOP_PER_SECOND <= most_seconds]
        if not points:
            raise UnavailableError(f"every step of width {width} takes longer: increase --most_seconds.")
        for processes in (1, 2):
            run.show_progress(f"width {width}, {processes} process{'es'[: 2 * processes - 2]}")
            rows += [{"wire": LOOPBACK, **row} for row in measured(Request(points, seconds_per_point), processes)]
        run.show_progress(f"width {width}, 2 processes on a wire of {gigabits:g} Gbit/s")
        try:
            on_wire = measured_on_a_wire(Request(points, seconds_per_point), gigabits)
        except UnavailableError as why:
            warnings.warn(f"skipped: {why}", stacklevel=2)
            on_wire = []
        rows += [{"wire": f"{gigabits:g} Gbit/s", **row} for row in on_wire]
    run.show_progress(f"a layer of {wide:,}")
    return {"steps": with_predictions(rows, gigabits), "predicted": predicted(rows), "wide": measure_wide(wide)}


def loopback(rows: list[dict[str, Any]]) -> Wire:
    """The loopback device as a wire, fitted to its measured all-reduces."""
    pairs = sorted({(row["width"], row["all_reduce"]) for row in rows if is_pair(row) and row["wire"] == LOOPBACK})
    return fitted_wire(LOOPBACK, [num_bytes(sizes_of(width)) for width, _ in pairs], [seconds for _, seconds in pairs])


def is_pair(row: dict[str, Any]) -> bool:
    return int(row["processes"]) == 2


def seconds_of_a_row(rows: list[dict[str, Any]], width: int, way: str) -> float:
    """Seconds of one row on one of two busy processes, from the largest measured batch."""
    of_way = [r for r in rows if (r["width"], r["way"], r["wire"]) == (width, way, LOOPBACK) and is_pair(r)]
    largest = max(of_way, key=lambda row: row["batch"])
    return float(largest["compute"] / largest["batch"])


def with_predictions(rows: list[dict[str, Any]], gigabits: float) -> list[dict[str, object]]:
    """Rows with the model's prediction of the same step, in milliseconds."""
    fitted, modelled = loopback(rows), []
    for row in rows:
        sizes, way, batch = sizes_of(row["width"]), row["way"], row["batch"]
        # The bandwidth of a slowed wire is known; its latency is that of the loopback device.
        wire = fitted if row["wire"] == LOOPBACK else Wire(row["wire"], gigabits * 1e9 / 8, fitted.latency)
        of_row = seconds_of_a_row(rows, row["width"], way)
        model = step_seconds(sizes, batch, of_row, wire, row["processes"], rows_of_last(way, sizes, batch))
        milliseconds = {name: f"{1e3 * row[name]:.4g}" for name in ("compute", "all_reduce", "step")}
        modelled.append(
            {name: row[name] for name in ("wire", "processes", "width", "batch", "way")}
            | {"gradient_mib": f"{num_bytes(sizes) / 2**20:.4g}"}
            | {f"{name}_ms": value for name, value in milliseconds.items()}
            | {"model_ms": f"{1e3 * model:.4g}", "rounds": row["rounds"], "spread": f"{row['spread']:.3f}"}
        )
    return modelled


def predicted(rows: list[dict[str, Any]]) -> list[dict[str, object]]:
    """Rows per second of a process among many, as a share of those of a single process."""
    widths, batches = (sorted({row[name] for row in rows}) for name in ("width", "batch"))
    return [
        {"wire": wire.name, "workers": workers, "width": width, "batch": batch}
        | {
            way: f"{efficiency(sizes, batch, of_row[way], wire, workers, rows_of_last(way, sizes, batch)):.4f}"
            for way in WAYS
        }
        for width in widths
        for sizes, of_row in [(sizes_of(width), {way: seconds_of_a_row(rows, width, way) for way in WAYS})]
        for wire in WIRES
        for workers in WORKERS
        for batch in batches
    ]


def hidden(row: Row) -> float:
    """The share of an exchange that did not lengthen the step."""
    compute, exchange, step = (float(row[f"{name}_ms"]) for name in ("compute", "all_reduce", "step"))
    return 1 - (step - compute) / exchange


def figures(tables: Tables) -> list[Figure]:
    steps = tables["steps"]
    pairs = where(steps, processes=2)
    wires = list(dict.fromkeys(row["wire"] for row in pairs))
    widths = sorted({int(row["width"]) for row in pairs})

    def smallest_batch(wire: str, width: int) -> list[Row]:
        """A row for each way."""
        of_width = where(pairs, wire=wire, width=width)
        return where(of_width, batch=min(int(row["batch"]) for row in of_width))

    def off(rows: list[Row]) -> str:
        ratios = [float(row["model_ms"]) / float(row["step_ms"]) for row in rows]
        return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if ratios else "–"

    found = []
    for wire in reversed(wires):
        for width in reversed(widths[-2:]):
            rows = smallest_batch(wire, width)
            found.append(
                Figure(
                    f"{wire}, width {width:,}, {int(rows[0]['batch']):,} rows each: step in ms (share of the exchange "
                    f"that is hidden), {' / '.join(WAYS)}",
                    "in stages faster than at once",
                    " / ".join(f"{float(row['step_ms']):.0f} ({hidden(row):.0%})" for row in rows),
                )
            )
    long, short = ([r for r in steps if (float(r["step_ms"]) >= LONG_STEP) == is_long] for is_long in (True, False))
    for name, rows in (
        (f"one process, from {LONG_STEP} ms", where(long, processes=1)),
        *((f"two processes, {w}, from {LONG_STEP} ms", where(long, processes=2, wire=w)) for w in wires),
        (f"two processes, any wire, below {LONG_STEP} ms", where(short, processes=2)),
    ):
        found.append(Figure(f"step by the model divided by the measured step, {name}, median (range)", "1", off(rows)))
    single = {(r["width"], r["batch"], r["way"]): float(r["compute_ms"]) for r in where(steps, processes=1)}
    both = [
        float(row["compute_ms"]) / single[row["width"], row["batch"], row["way"]]
        for row in where(pairs, wire=LOOPBACK)
        if row["way"] != EAGER
    ]
    found.append(
        Figure(
            "compute of one of two processes divided by that of a single process, torchnn, median (range)",
            "1 if they shared nothing",
            f"{statistics.median(both):.2f} ({min(both):.2f} to {max(both):.2f})",
        )
    )
    for named in WIRES:
        small, *_ = where(tables["predicted"], wire=named.name, workers=WORKERS[-1], width=widths[-1])
        found.append(
            Figure(
                f"predicted efficiency of {WORKERS[-1]:,} workers, width {widths[-1]:,}, batch {int(small['batch']):,} "
                f"each, {named.name}: {' / '.join(WAYS)}",
                "not known",
                " / ".join(f"{float(small[way]):.0%}" for way in WAYS),
            )
        )
    found += wide_figures(tables["wide"])
    return found


def draw(tables: Tables) -> dict[str, Any]:
    return {"measured.png": draw_measured(tables["steps"]), "predicted.png": draw_predicted(tables["predicted"])}


def draw_measured(steps: list[Row]) -> Any:
    """Plot steps of two processes, as multiples of their compute, with the model."""
    pairs = where(steps, processes=2)
    wires = list(dict.fromkeys(row["wire"] for row in pairs))
    widths = sorted({int(row["width"]) for row in pairs})
    figure, all_axes = new_figure(len(widths), len(wires), size=(3.3, 2.9), share_x=True)
    for of_wire, wire in zip(all_axes, wires, strict=True):
        for axes, width in zip(of_wire, widths, strict=True):
            for mark, (way, colour) in zip(MARKS, COLOUR_OF_WAY.items(), strict=False):
                line = where(pairs, wire=wire, width=width, way=way)
                batches, compute = numbers(line, "batch"), numbers(line, "compute_ms")
                step, model = numbers(line, "step_ms"), numbers(line, "model_ms")
                ratios = [a / b for a, b in zip(step, compute, strict=True)]
                axes.plot(batches, ratios, color=colour, marker=mark, label=way)
                of_model = [a / b for a, b in zip(model, compute, strict=True)]
                axes.plot(batches, of_model, color=colour, linestyle=":", marker="x", label=f"model of {way}")
            axes.axhline(1, color="grey", linewidth=0.8)
            axes.set_xscale("log", base=4)
            axes.set_title(f"width {width:,}, {wire}", fontsize="medium")
        of_wire[0].set_ylabel("step / compute")
    for axes in all_axes[-1]:
        axes.set_xlabel("batch of each process")
    figure.legend(*all_axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def draw_predicted(cells: list[Row]) -> Any:
    """Plot efficiency by batch: one column per number of workers, one row for a narrow and one for a wide network."""
    widths = sorted({int(row["width"]) for row in cells})
    shown = [widths[len(widths) // 2], widths[-1]] if len(widths) > 1 else widths
    figure, all_axes = new_figure(len(WORKERS), len(shown), size=(3.6, 2.9), share_x=True, share_y=True)
    for of_width, width in zip(all_axes, shown, strict=True):
        for axes, workers in zip(of_width, WORKERS, strict=True):
            for wire, colour in zip(WIRES, COLOURS, strict=False):
                line = where(cells, width=width, workers=workers, wire=wire.name)
                for way, style in zip(WAYS, (":", "--", "-"), strict=True):
                    label = f"{wire.name}, {way}"
                    axes.plot(numbers(line, "batch"), numbers(line, way), color=colour, linestyle=style, label=label)
            axes.set_xscale("log", base=4)
            axes.set_ylim(0, 1.03)
            axes.set_title(f"width {width:,}, {workers:,} workers", fontsize="medium")
        of_width[0].set_ylabel("efficiency")
    for axes in all_axes[-1]:
        axes.set_xlabel("batch of each worker")
    figure.legend(*all_axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize="small")
    return figure


EXPERIMENT = Experiment(
    "scale",
    "What do many processes cost, and how much of the exchange of gradients hides behind the backward?",
    measure,
    figures,
    draw,
)
