"""Two and three processes give the results of one process, up to rounding in float64."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.csv as pacsv
import pytest
import torch

from tests.distributed.runs import RUNS, STEPS, differences, trained, write_tables

ROUNDING = 1e-12
EXACT = [name for name in RUNS if name != "mean of means"]
OF_THREE = ["weighted", "accumulated", "lonely row", "streamed", "few validate", "pairs"]
IN_THE_SECOND_EPOCH = STEPS + 3


def on_many(folder: Path, num_ranks: int, plan: dict[str, list[Any]]) -> dict[str, dict[str, torch.Tensor]]:
    """The results of a number of processes, by the key of the plan."""
    words = ["--standalone", "--nproc_per_node", str(num_ranks), "-m", "tests.distributed.runs"]
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *words, str(folder), json.dumps(plan)],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    return {key: torch.load(folder / f"{key}.pt", weights_only=True) for key in plan}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tables")
    write_tables(root)
    for name in ("weighted", "streamed"):
        trained(root, name, max_steps=IN_THE_SECOND_EPOCH, keep=f"{name} by one")
    return root


@pytest.fixture(scope="module")
def two(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    plan: dict[str, list[Any]] = {name: [name, {}] for name in RUNS}
    plan["weighted"] = ["weighted", {"output": "two.csv"}]
    plan["weighted again"] = ["weighted", {}]
    for name in ("weighted", "streamed"):
        kept = f"{name} by two"
        plan[f"{name} cut"] = [name, {"max_steps": IN_THE_SECOND_EPOCH, "keep": kept}]
        plan[f"{name} resumed"] = [name, {"resume": f"{kept}/checkpoints/last.ckpt"}]
        plan[f"{name} by one, then two"] = [name, {"resume": f"{name} by one/checkpoints/last.ckpt"}]
    return on_many(folder, 2, plan)


@pytest.fixture(scope="module")
def three(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    return on_many(folder, 3, {name: [name, {}] for name in OF_THREE})


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:You defined a `validation_step`")  # the run of pairs has training rows only
@pytest.mark.parametrize("name", EXACT)
def test_two_processes_end_where_one_does(name: str, folder: Path, two: dict[str, Any]) -> None:
    found = differences(trained(folder, name), two[name])
    assert max(found.values()) < ROUNDING, found


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:You defined a `validation_step`")  # the run of pairs has training rows only
@pytest.mark.parametrize("name", OF_THREE)
def test_three_processes_end_where_one_does(name: str, folder: Path, three: dict[str, Any]) -> None:
    found = differences(trained(folder, name), three[name])
    assert max(found.values()) < ROUNDING, found


@pytest.mark.slow
def test_the_comparison_notices_a_mean_of_means(folder: Path, two: dict[str, Any]) -> None:
    assert differences(trained(folder, "mean of means"), trained(folder, "plain"))["fit/val_loss"] == 0, (
        "of one process"
    )
    found = differences(trained(folder, "plain"), two["mean of means"])
    assert max(found.values()) > 1e-3


@pytest.mark.slow
def test_accumulated_batches_are_the_step_of_a_batch_as_large(folder: Path) -> None:
    """143 rows are six batches of 21 and one of 17: steps of 63, 63 and 17 rows."""
    large = {**RUNS["accumulated"], "trainer": {}, "data": {"weight_column": "weight", "batch_size": 63}}
    found = differences(trained(folder, "accumulated"), trained(folder, large))
    assert max(found.values()) < ROUNDING, found


@pytest.mark.slow
def test_the_same_seed_and_number_of_processes_give_the_same_bits(two: dict[str, Any]) -> None:
    assert max(differences(two["weighted"], two["weighted again"]).values()) == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["weighted", "streamed"])
def test_a_run_resumes_within_an_epoch_with_the_same_or_another_number_of_processes(
    name: str, folder: Path, two: dict[str, Any]
) -> None:
    assert max(differences(two[name], two[f"{name} resumed"]).values()) == 0, "bit for bit"
    by_one = trained(folder, name, resume=f"{name} by two/checkpoints/last.ckpt", keep=f"{name} by two, then one")
    for found in (by_one, two[f"{name} by one, then two"]):
        assert max(differences(two[name], found).values()) < ROUNDING, differences(two[name], found)


@pytest.mark.slow
def test_predictions_are_those_of_one_process(folder: Path, two: dict[str, Any]) -> None:
    trained(folder, "weighted", output="one.csv")
    ours, expected = (pacsv.read_csv(folder / name) for name in ("two.csv", "one.csv"))
    assert ours.column_names == expected.column_names == ["row", "probability", "label"]
    for name in ("row", "label"):
        assert ours[name].equals(expected[name])
    np.testing.assert_allclose(ours["probability"], expected["probability"], rtol=0, atol=ROUNDING)
    assert not list(folder.glob(".*"))
