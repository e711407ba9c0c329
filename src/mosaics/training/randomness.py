"""Seeds, and the state of the random generators as tensors."""

import hashlib
import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

__all__ = ["capture_rng", "mix_seed", "preserved_rng", "restore_rng", "seed_cpu_rng", "seed_rng"]


def mix_seed(*parts: int | str) -> int:
    """A 63-bit seed that is a pure function of its parts; nearby parts give unrelated seeds.

    Example:
        >>> mix_seed(0, "order", 1) == mix_seed(0, "order", 1)
        True
        >>> mix_seed(0, "order", 1) == mix_seed(1, "order", 0)
        False
    """
    digest = hashlib.blake2b(json.dumps(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_cpu_rng(seed: int) -> None:
    """Seeds the CPU generators of Python, NumPy and PyTorch; unlike `torch.manual_seed`, not those of devices."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)


def seed_rng(seed: int) -> None:
    """Seeds Python, NumPy and PyTorch on every device."""
    seed_cpu_rng(seed)
    torch.manual_seed(seed)


def capture_rng(device: torch.device | None = None) -> dict[str, torch.Tensor]:
    """The state of Python, NumPy, PyTorch on CPU and PyTorch on `device`, as integer tensors.

    Tensors can be kept in a safetensors file: reading the state back executes nothing, unlike a pickle.
    """
    version, python_words, gauss_next = random.getstate()
    if version != 3:
        raise RuntimeError(f"Python's random.getstate() has version {version}, expected 3.")
    numpy_state = np.random.get_state(legacy=False)
    if numpy_state["bit_generator"] != "MT19937":
        raise RuntimeError(f"NumPy's global generator is a {numpy_state['bit_generator']}, expected MT19937.")
    numpy_words, position = numpy_state["state"]["key"], numpy_state["state"]["pos"]
    states = {
        "python": torch.tensor(python_words, dtype=torch.int64),
        "python_gauss": torch.tensor([] if gauss_next is None else [gauss_next], dtype=torch.float64),
        "numpy": torch.from_numpy(numpy_words.astype(np.int64)),
        "numpy_position": torch.tensor([position, numpy_state["has_gauss"]], dtype=torch.int64),
        "numpy_gauss": torch.tensor([numpy_state["gauss"]], dtype=torch.float64),
        "torch": torch.get_rng_state(),
    }
    if device is not None and device.type != "cpu":
        states["device"] = torch.get_device_module(device).get_rng_state(device)
    return states


def restore_rng(states: dict[str, torch.Tensor], device: torch.device | None = None) -> None:
    """Undoes [`capture_rng`]: the generators continue as if nothing had been drawn since."""
    gauss = states["python_gauss"].tolist()
    random.setstate((3, tuple(states["python"].tolist()), gauss[0] if gauss else None))
    position, has_gauss = states["numpy_position"].tolist()
    words = states["numpy"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", words, position, has_gauss, states["numpy_gauss"].item()))
    torch.set_rng_state(states["torch"])
    if device is not None and device.type != "cpu" and "device" in states:
        torch.get_device_module(device).set_rng_state(states["device"], device)


@contextmanager
def preserved_rng(device: torch.device | None = None) -> Iterator[Any]:
    """Leaves the generators as it found them, whatever is drawn inside."""
    states = capture_rng(device)
    try:
        yield
    finally:
        restore_rng(states, device)
