"""Two hosts on one machine: network namespaces that are connected, each with a host name of its own."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.distributed.commands import LAUNCHERS, environment


def run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


def reason_against() -> str | None:
    """Why namespaces cannot be made on this machine, None if they can."""
    if shutil.which("ip") is None or shutil.which("unshare") is None:
        return "needs the commands ip and unshare"
    name = f"torchnn{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if made.returncode != 0:
        return f"needs the right to make network namespaces: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
    inside = subprocess.run(["unshare", "--uts", "true"], capture_output=True, text=True)
    return None if inside.returncode == 0 else f"needs the right to name a host: {inside.stderr.strip()}"


class Host:
    """A namespace with one network card.

    Attributes:
        name: of the host.
        address: of its card.
        card: its name.
    """

    def __init__(self, number: int) -> None:
        self.name = f"host-{'ab'[number]}"
        self.namespace = f"torchnn{os.getpid()}{'ab'[number]}"
        self.address = f"10.77.7.{number + 1}"
        self.card = f"tnn{os.getpid() % 100_000}{'ab'[number]}"

    def command(self, words: Sequence[str]) -> list[str]:
        """The words that run a command there."""
        inside = 'hostname "$0" && exec "$@"'
        return ["ip", "netns", "exec", self.namespace, "unshare", "--uts", "sh", "-c", inside, self.name, *words]

    def start(self, words: Sequence[str], folder: Path, env: dict[str, str]) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            self.command(words),
            cwd=folder,
            env={**env, "GLOO_SOCKET_IFNAME": self.card},
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


@contextlib.contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """Two hosts that reach each other; skips the test if the process may not make them."""
    if (reason := reason_against()) is not None:
        pytest.skip(reason)
    hosts = Host(0), Host(1)
    made = []
    try:
        for host in hosts:
            run("ip", "netns", "add", host.namespace)
            made.append(host)
        a, b = hosts
        cable = ["ip", "-n", a.namespace, "link", "add", a.card, "type", "veth"]
        run(*cable, "peer", "name", b.card, "netns", b.namespace)
        for host in hosts:
            run("ip", "-n", host.namespace, "addr", "add", f"{host.address}/24", "dev", host.card)
            for card in ("lo", host.card):
                run("ip", "-n", host.namespace, "link", "set", card, "up")
        yield hosts
    finally:
        for host in made:
            subprocess.run(["ip", "netns", "del", host.namespace], check=False, capture_output=True)


def start_torchrun(hosts: Sequence[Host], words: Sequence[str], folder: Path) -> "list[subprocess.Popen[str]]":
    """Run launch_torchrun.sh on each of two hosts, with further words for `torchnn fit`."""
    return [
        host.start(
            [str(LAUNCHERS / "launch_torchrun.sh"), *words],
            folder,
            environment(HEAD=f"{hosts[0].address}:29400", NODE=str(number), ADDRESS=host.address),
        )
        for number, host in enumerate(hosts)
    ]
