"""Where and in which dtype to compute, from facts about the machine and never from timing."""

import torch

from featcache.backbones.names import COMPUTE
from featcache.errors import UnknownNameError, UsageError
from featcache.wording import Argument


def pick_device(device: str) -> torch.device:
    """Return the device of a name; `auto` is CUDA where there is one, else the CPU.

    Raises:
        UsageError: If the name is none of torch's, or this machine has no such device.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        picked = torch.device(device)
        torch.zeros(1, device=picked).cpu()  # `meta` has no numbers to give back
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].partition(". ")[0].rstrip(".")[:200]
        raise UsageError(
            f"Device '{device}' cannot be used here ({reason}). Use ",
            Argument("device", "cpu"),
            ", or ",
            Argument("device", "auto"),
            ".",
        ) from error
    return picked


def pick_dtype(compute: str, device: torch.device) -> torch.dtype:
    """Return the image tower's dtype; `auto` is bf16 where the device has units for it.

    Raises:
        UnknownNameError: If it is none of auto, bf16, fp32.
    """
    if compute not in COMPUTE:
        raise UnknownNameError("compute dtype", compute, COMPUTE)
    if compute == "auto":
        return torch.bfloat16 if has_bf16_units(device) else torch.float32
    return torch.bfloat16 if compute == "bf16" else torch.float32


def has_bf16_units(device: torch.device) -> bool:
    """AMX or AVX512-BF16 on a CPU, tensor cores of sm80 or later: elsewhere bf16 is emulated."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    probes = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(bool(getattr(torch.cpu, probe, lambda: False)()) for probe in probes)


def lacks_memory(error: Exception) -> bool:
    """Tell an accelerator's, numpy's and torch's own want of memory from all other errors."""
    kinds = (torch.OutOfMemoryError, MemoryError)
    said = str(error)
    return isinstance(error, kinds) or "DefaultCPUAllocator" in said or "out of memory" in said
