"""Device and compute dtype, chosen from hardware features and never by timing."""

import torch

from featcache.backbones.names import COMPUTE
from featcache.errors import UnknownNameError, UsageError
from featcache.wording import Argument


def pick_device(device: str = "auto") -> torch.device:
    """Return the device that a name stands for; `auto` is CUDA if available, else the CPU.

    Raises:
        UsageError: If torch does not know the name, or this machine has no such device.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        picked = torch.device(device)
        torch.zeros(1, device=picked).cpu()  # `meta` stores no data, so copying from it fails
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].partition(". ")[0].rstrip(".")[:200]
        if reason.startswith("Expected one of"):  # all that torch can be built for
            reason = "torch knows no such device"
        raise UsageError(
            f"Device '{device}' cannot be used here ({reason}). Use ",
            Argument("device", "cpu"),
            ", or ",
            Argument("device", "auto"),
            ".",
        ) from error
    return picked


def pick_dtype(compute: str, device: torch.device) -> torch.dtype:
    """Return the dtype of the image tower; `auto` is bf16 if the device has units for it.

    Raises:
        UnknownNameError: If `compute` is none of auto, bf16, fp32.
    """
    if compute not in COMPUTE:
        raise UnknownNameError("compute dtype", compute, COMPUTE)
    if compute == "auto":
        return torch.bfloat16 if has_bf16_units(device) else torch.float32
    return torch.bfloat16 if compute == "bf16" else torch.float32


def has_bf16_units(device: torch.device) -> bool:
    """Tell whether the device computes bf16 in hardware: AMX, AVX512-BF16, or sm80 and later."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    probes = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(bool(getattr(torch.cpu, probe, lambda: False)()) for probe in probes)


def lacks_memory(error: Exception) -> bool:
    """Tell whether an error of torch or numpy means that memory ran out."""
    kinds = (torch.OutOfMemoryError, MemoryError)
    message = str(error)
    marks = ("DefaultCPUAllocator", "out of memory")
    return isinstance(error, kinds) or any(mark in message for mark in marks)
