"""FSDP2 and DistributedDataParallel with two processes give the results of one process, and share its memory."""

import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor, distributed, multiprocessing, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import torchnn
from tests.networks import assert_close
from torchnn.functional import network as functional_network
from torchnn.model.checkpoint import load_plain
from torchnn.model.sharded import shard
from torchnn.ops.network.function import NetworkFunction
from torchnn.training import BinaryClassifier

PROCESSES, WIDTH, ROWS = 2, 16_384, 6
SIZES = [10, WIDTH, 10, 1]  # two stages of more than a MiB


class Grown(nn.Module):
    """A network behind an embedding, both with parameters, as a classifier has them."""

    def __init__(self) -> None:
        super().__init__()
        self.preprocess, self.network = nn.Embedding(4, 10), make()


def make() -> torchnn.MLP:
    torch.manual_seed(0)
    return torchnn.MLP(SIZES, dtype=torch.double)


def batch(loud: float = 1.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(ROWS, SIZES[0], generator=generator, dtype=torch.double)
    return x * loud, (x[:, :1] > 0).double()


def saturated() -> torchnn.MLP:
    """So that a sigmoid of the logits is 0 or 1 in float64, and cross-entropy of it is clamped."""
    mlp = make()
    with torch.no_grad():
        last: Any = mlp.layers[-1]
        last.weight.fill_(200.0)
    return mlp


def trained(mlp: nn.Module, rows: slice) -> dict[str, Any]:
    """Loss, gradients and parameters after a step of AdamW on some rows."""
    x, y = batch()
    optimiser = torch.optim.AdamW(mlp.parameters(), 0.01)
    with noted_passes() as passes:
        loss = mlp(x[rows], y[rows])
    loss.backward()
    kept = list(mlp.parameters())
    gradients = [full(p.grad) for p in kept]
    optimiser.step()
    states = [t for p in kept for t in optimiser.state[p].values() if t.dim() > 0]
    of_kind: dict[str, list[Any]] = {"parameters": kept, "gradients": [p.grad for p in kept], "optimiser state": states}
    return {
        "loss": loss.detach(),
        "gradients": gradients,
        "parameters": [full(p.detach()) for p in kept],
        "bytes": {kind: sum(local(t).nbytes for t in tensors) for kind, tensors in of_kind.items()},
        "passes": passes,
    }


def full(t: Any) -> Tensor:
    whole: Tensor = t.full_tensor() if hasattr(t, "full_tensor") else t
    return whole.clone()


def local(t: Any) -> Tensor:
    part: Tensor = t.to_local() if hasattr(t, "to_local") else t
    return part


@contextmanager
def noted_passes() -> Iterator[list[int]]:
    """The number of layers of each whole-network pass."""
    layers: list[int] = []
    forward = NetworkFunction.forward

    def noted(plan: Any, *args: Any) -> Any:
        layers.append(plan.num_layers)
        return forward(plan, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(NetworkFunction, "forward", staticmethod(noted))
        yield layers


def as_one(mlp: Any) -> Any:
    return fully_shard(mlp, mesh=init_device_mesh("cpu", (PROCESSES,)))


def by_layers(mlp: Any) -> Any:
    for layer in mlp.layers:
        fully_shard(layer, mesh=init_device_mesh("cpu", (PROCESSES,)))
    return as_one(mlp)


def as_a_classifier_does(mlp: Any) -> Any:
    """What `BinaryClassifier.configure_model` does, twice, as two stages of a Trainer do."""
    grown, mesh = Grown(), init_device_mesh("cpu", (PROCESSES, 1), mesh_dim_names=("data_parallel", "tensor_parallel"))
    grown.network = mlp
    for _ in range(2):
        shard([grown.preprocess, grown.network], mesh)
    grown.preprocess(torch.tensor([0, 1])).sum().backward()
    gradient: Any = grown.preprocess.weight.grad
    assert gradient.to_local().shape == (2, 10)
    assert float(gradient.full_tensor().sum()) == 20
    return grown.network


WAYS: dict[str, Callable[[Any], Any]] = {
    "one unit": as_one,
    "layers": by_layers,
    "classifier": as_a_classifier_does,
    "DDP": DistributedDataParallel,
}


def one_process(rank: int, folder: str) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    store = Path(folder, "store").as_uri()
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=PROCESSES)
    rows = slice(rank, None, PROCESSES)
    found: dict[str, Any] = {way: trained(wrap(make()), rows) for way, wrap in WAYS.items()}
    x, y = batch(loud=1e3)
    found["saturated"] = by_layers(saturated())(x, y).detach()
    by_name = as_one(make())
    by_name.loss(*batch()).backward()
    found["by name"] = [full(p.grad) for p in by_name.parameters()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(functional_network, "exchanges_gradients", lambda: False)
        found["DDP at once"] = trained(DistributedDataParallel(make()), rows)
    torch.save(found, Path(folder, f"{rank}.pt"))
    distributed.barrier()
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def ranks() -> Iterator[list[dict[str, Any]]]:
    """What each of two processes has found."""
    with tempfile.TemporaryDirectory() as folder:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forking a process that has threads
            processes: Any = multiprocessing  # its types leave this function out
            processes.start_processes(one_process, (folder,), nprocs=PROCESSES, start_method="fork")
        yield [torch.load(Path(folder, f"{rank}.pt"), weights_only=True) for rank in range(PROCESSES)]


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    return trained(make(), slice(None))


@pytest.mark.parametrize("way", [*WAYS, "DDP at once"])
def test_two_processes_give_what_one_gives(way: str, ranks: list[dict[str, Any]], alone: dict[str, Any]) -> None:
    for found in ranks:
        assert_close(found[way]["gradients"], alone["gradients"])
        assert_close(found[way]["parameters"], alone["parameters"])
    assert_close(sum(found[way]["loss"] for found in ranks) / PROCESSES, alone["loss"])


@pytest.mark.parametrize("way", ["one unit", "layers", "classifier"])
@pytest.mark.parametrize("kind", ["parameters", "gradients", "optimiser state"])
def test_each_process_holds_half(kind: str, way: str, ranks: list[dict[str, Any]], alone: dict[str, Any]) -> None:
    held = [found[way]["bytes"][kind] for found in ranks]
    assert sum(held) == alone["bytes"][kind]
    assert max(held) < 0.501 * alone["bytes"][kind]


def test_gradients_that_are_not_sharded_are_whole_in_each_process(
    ranks: list[dict[str, Any]], alone: dict[str, Any]
) -> None:
    """A check of the byte count itself."""
    assert ranks[0]["DDP"]["bytes"] == alone["bytes"]


def test_the_loss_runs_in_one_pass_inside_the_sharded_forward(ranks: list[dict[str, Any]]) -> None:
    assert ranks[0]["classifier"]["passes"] == ranks[0]["one unit"]["passes"]
    assert sum(ranks[0]["one unit"]["passes"]) == len(SIZES) - 1
    assert ranks[0]["layers"]["passes"] == []


def test_gradients_go_out_in_stages_among_processes(ranks: list[dict[str, Any]], alone: dict[str, Any]) -> None:
    assert ranks[0]["DDP"]["passes"] == [1, 2]
    assert ranks[0]["DDP at once"]["passes"] == alone["passes"] == [3]


def test_the_loss_by_its_name_gathers_the_parameters_too(ranks: list[dict[str, Any]], alone: dict[str, Any]) -> None:
    for found in ranks:
        assert_close(found["by name"], alone["gradients"])


def test_layers_sharded_one_by_one_keep_the_exact_loss(ranks: list[dict[str, Any]]) -> None:
    """Their hooks do not make the last layer return a probability, whose cross-entropy is clamped at 100."""
    x, y = batch(loud=1e3)
    expected = saturated()(x, y).detach()
    assert expected > 100
    for found in ranks:
        assert_close(found["saturated"], expected)


def test_a_hook_of_the_user_gets_the_probability() -> None:
    mlp: Any = saturated()
    mlp.layers[-1].register_forward_hook(lambda *_: None)
    assert mlp(*batch(loud=1e3)) <= 100


class Mesh(dict[str, Any]):
    """Sizes of the dimensions of a device mesh."""

    def size(self) -> int:
        return 2


def test_tensor_parallelism_is_refused() -> None:
    with pytest.raises(MisconfigurationException, match=r"tensor_parallel_size is 2.* --trainer\.strategy fsdp2"):
        shard([make()], {"data_parallel": Mesh(), "tensor_parallel": Mesh()})


def test_other_strategies_leave_the_model_alone() -> None:
    model = BinaryClassifier(3, [4])
    model._trainer = type("Trainer", (), {"strategy": object()})()
    model.configure_model()
    assert type(model.network) is torchnn.MLP


@pytest.mark.slow
@pytest.mark.parametrize("optimiser", ["AdamW", "SGD"])  # one of them keeps no state
def test_the_command_shards_and_any_number_of_processes_resumes(optimiser: str, tmp_path: Path) -> None:
    """With unequal last batches, accumulated gradients, and clipping by a norm that needs all processes."""

    def fit(epochs: int, *words: str) -> dict[str, Any]:
        command = [sys.executable, "-m", "torchnn", "fit", "--model.hidden_sizes", "[16]", "--data.batch_size", "33"]
        command += ["--model.optimizer", optimiser, "--trainer.gradient_clip_val", "0.1"]
        command += ["--trainer.accelerator", "cpu", "--trainer.precision", "64-true"]
        command += ["--trainer.accumulate_grad_batches", "2"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
        words = (*command, "--trainer.max_epochs", str(epochs), *words)
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("accuracy ") == 1
        return load_plain(tmp_path / done.stdout.split()[-1] / "checkpoints" / "last.ckpt")

    one, two = ("--trainer.devices", "1"), ("--trainer.devices", "2", "--trainer.strategy", "fsdp2")
    resume = "--ckpt_path", str(tmp_path / "lightning_logs" / "version_0" / "checkpoints" / "last.ckpt")
    assert_close(fit(2, *two)["state_dict"], fit(2, *one)["state_dict"], 1e-10)
    straight, resumed = fit(3, *two), fit(3, *two, *resume)
    torch.testing.assert_close(resumed["state_dict"], straight["state_dict"], rtol=0, atol=0)
    states, expected = (run["optimizer_states"][0] for run in (resumed, straight))
    torch.testing.assert_close(states["state"], expected["state"], rtol=0, atol=0)
    groups = [
        [(group["params"], group["lr"], group["weight_decay"]) for group in s["param_groups"]]
        for s in (states, expected)
    ]
    assert groups[0] == groups[1]
    assert_close(fit(3, *one, *resume)["state_dict"], straight["state_dict"], 1e-10)
