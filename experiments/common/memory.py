"""The high-water mark of memory: of this process, as Linux keeps it, or of a GPU."""

import ctypes
import gc
from pathlib import Path

import torch

FORGET_THE_MARK = "5"


def kibibytes(path: str, field: str) -> int | None:
    """Bytes that a line "field: 123 kB" of a file tells; None where there is no such file."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{field}:")), None)


def high_water_mark() -> int:
    """The most bytes that were resident since `forget_the_mark`, or since the process began."""
    mark = kibibytes("/proc/self/status", "VmHWM")
    assert mark is not None
    return mark


def forget_the_mark() -> None:
    """Let the mark begin again at what is resident now."""
    Path("/proc/self/clear_refs").write_text(FORGET_THE_MARK)


def give_back() -> None:
    """Hand memory that is no longer used back to the system, where the C library keeps it for later and can do so."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def is_measurable(device: torch.device) -> bool:
    """Whether `ExtraMemory` has a mark to read."""
    return device.type == "cuda" or (device.type == "cpu" and Path("/proc/self/clear_refs").exists())


class ExtraMemory:
    """How far memory rises above what is taken at the start."""

    def __init__(self, device: torch.device) -> None:
        gc.collect()
        self.device = device
        if device.type == "cuda":
            torch.cuda.synchronize(device)
            torch.cuda.reset_peak_memory_stats(device)
            self.before: int = torch.cuda.memory_allocated(device)
        else:
            give_back()
            forget_the_mark()
            self.before = high_water_mark()

    @property
    def bytes(self) -> int:
        """Up to now."""
        on_gpu = self.device.type == "cuda"
        mark: int = torch.cuda.max_memory_allocated(self.device) if on_gpu else high_water_mark()
        return mark - self.before
