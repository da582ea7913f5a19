"""Peak memory: of this process, as Linux reports it, or of a GPU."""

import ctypes
import gc
from pathlib import Path

import torch

RESET_PEAK = "5"  # see proc_pid_clear_refs(5)


def bytes_of_field(path: str, field: str) -> int | None:
    """The value in bytes of a line "field: 123 kB" of a file; None if the file does not exist."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{field}:")), None)


def peak_bytes_of_process() -> int:
    """The peak of resident bytes since `reset_peak`, or since the process started."""
    peak = bytes_of_field("/proc/self/status", "VmHWM")
    assert peak is not None
    return peak


def reset_peak() -> None:
    """Reset the peak to the bytes that are resident now."""
    Path("/proc/self/clear_refs").write_text(RESET_PEAK)


def release_unused() -> None:
    """Return unused memory to the system, if the C library can do that."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def is_measurable(device: torch.device) -> bool:
    """Whether `ExtraMemory` works on this device and system."""
    return device.type == "cuda" or (device.type == "cpu" and Path("/proc/self/clear_refs").exists())


class ExtraMemory:
    """The growth of peak memory since this object was created."""

    def __init__(self, device: torch.device) -> None:
        gc.collect()
        self.device = device
        if device.type == "cuda":
            torch.cuda.synchronize(device)
            torch.cuda.reset_peak_memory_stats(device)
            self.before: int = torch.cuda.memory_allocated(device)
        else:
            release_unused()
            reset_peak()
            self.before = peak_bytes_of_process()

    @property
    def bytes(self) -> int:
        """The growth up to now."""
        on_gpu = self.device.type == "cuda"
        peak: int = torch.cuda.max_memory_allocated(self.device) if on_gpu else peak_bytes_of_process()
        return peak - self.before
