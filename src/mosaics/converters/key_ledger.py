"""Where every tensor of a source goes. Nothing is forgotten, and everything can be compared afterwards."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import nn

from mosaics.converters.errors import KeyMismatchError
from mosaics.models.weights_check import WeightsError, refuse_nonfinite

SHOWN = 8
FAULT = "a fault of the conversion"


class Layout(NamedTuple):
    """How one tensor is arranged anew. Each function undoes the other exactly: they only move numbers.

    Attributes:
        forward: The source's tensor to the model's.
        backward: The model's tensor to the source's.
    """

    forward: Callable[[torch.Tensor], torch.Tensor]
    backward: Callable[[torch.Tensor], torch.Tensor]


SAME = Layout(lambda tensor: tensor, lambda tensor: tensor)
TRANSPOSED = Layout(torch.t, torch.t)
# A 1x1 convolution and the linear layer it is.
CONVOLUTION_TO_LINEAR = Layout(lambda tensor: tensor[:, :, 0, 0], lambda tensor: tensor[:, :, None, None])
LINEAR_TO_CONVOLUTION = Layout(CONVOLUTION_TO_LINEAR.backward, CONVOLUTION_TO_LINEAR.forward)
# A 1x1 convolution over one-hot codes (D, K, 1, 1) and the codebook (K, D) it is.
CONVOLUTION_TO_CODEBOOK = Layout(lambda tensor: tensor[:, :, 0, 0].t(), lambda tensor: tensor.t()[:, :, None, None])


class _Move(NamedTuple):
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    restore: Callable[[Sequence[torch.Tensor]], Sequence[torch.Tensor]]  # the model's tensors to the source's


class KeyLedger:
    """Every key of a source, to be moved or dropped.

    Args:
        tensors: The source's tensors by name.
        source: What to call the source in messages: the file's name.

    Attributes:
        dropped: Keys that are left out, and why.
    """

    def __init__(self, tensors: Mapping[str, torch.Tensor], source: str):
        self.tensors = dict(tensors)
        self.source = source
        self.dropped: dict[str, str] = {}
        self._moves: list[_Move] = []
        self._used: set[str] = set()
        self._weights: dict[str, torch.Tensor] = {}
        self._filled: dict[str, torch.Tensor] = {}

    def __contains__(self, key: str) -> bool:
        """Whether the source has the key."""
        return key in self.tensors

    def keys(self, prefix: str = "", suffix: str = "") -> list[str]:
        """The keys, in the source's order, that begin and end so."""
        return [key for key in self.tensors if key.startswith(prefix) and key.endswith(suffix)]

    def tensor(self, key: str, dim: int | None = None) -> torch.Tensor:
        """A tensor, to look at; it still has to be moved or dropped.

        Raises:
            KeyMismatchError: It is missing, or has not `dim` axes.
        """
        if key not in self.tensors:
            near = [other for other in self.tensors if other.split(".")[-1] == key.split(".")[-1]]
            held = _some(near or list(self.tensors)) or "nothing"
            raise KeyMismatchError(f"{self.source} has no tensor {key!r}; it has {held}.")
        tensor = self.tensors[key]
        if dim is not None and tensor.dim() != dim:
            raise KeyMismatchError(
                f"{self.source}: tensor {key!r} must have {dim} axes, got the shape {tuple(tensor.shape)}."
            )
        return tensor

    def shape(self, key: str, dim: int | None = None) -> tuple[int, ...]:
        """The shape of a tensor; see [`tensor`]."""
        return tuple(self.tensor(key, dim).shape)

    def move(self, source: str, target: str, layout: Layout = SAME) -> None:
        """The tensor `source` becomes `target`, arranged by `layout`."""
        moved = self._arrange(lambda: layout.forward(self.tensor(source)), source)
        self._record((source,), {target: moved}, lambda tensors: [layout.backward(tensors[0])])

    def join(self, sources: Sequence[str], target: str, dim: int = 0) -> None:
        """Several tensors become one, one after the other along `dim`."""
        parts = [self.tensor(source) for source in sources]
        moved = self._arrange(lambda: torch.cat(parts, dim=dim), ", ".join(sources))
        sizes = [part.shape[dim] for part in parts]
        self._record(tuple(sources), {target: moved}, lambda tensors: tensors[0].split(sizes, dim=dim))

    def split(self, source: str, targets: Sequence[str], sizes: Sequence[int], dim: int = 0) -> None:
        """One tensor becomes several, cut along `dim` into `sizes`."""
        parts = self._arrange(lambda: self.tensor(source).split(list(sizes), dim=dim), source)
        moved = dict(zip(targets, parts, strict=True))
        self._record((source,), moved, lambda tensors: [torch.cat(list(tensors), dim=dim)])

    def fill(self, target: str, tensor: torch.Tensor) -> None:
        """A tensor of the model that the source does not hold as such, but determines."""
        self._record((), {target: tensor}, lambda tensors: [])
        self._filled[target] = tensor

    def drop(self, keys: str | Iterable[str], reason: str) -> None:
        """These keys are left out; the reason is written into the provenance."""
        for key in [keys] if isinstance(keys, str) else list(keys):
            self.tensor(key)
            self._use(key)
            self.dropped[key] = reason

    def drop_copy(self, key: str, of: str) -> None:
        """A tensor that must equal another one is left out.

        Raises:
            KeyMismatchError: It differs.
        """
        if not same_bits(self.tensor(key), self.tensor(of)):
            raise KeyMismatchError(f"{self.source}: tensors {key!r} and {of!r} must be equal, and are not.")
        self.drop(key, f"a copy of {of}")

    def finish(self, model: nn.Module) -> dict[str, torch.Tensor]:
        """The weights of the model, after checking that they are all there and nothing is left over.

        Raises:
            KeyMismatchError: A key of the source was left over, one of the model is missing, or has another shape, or
                a number is not finite.
        """
        name = type(model).__name__
        left = [key for key in self.tensors if key not in self._used]
        if left:
            raise KeyMismatchError(
                f"{self.source} has {len(left)} tensors that {name} has no place for: {_some(left)}."
            )
        expected = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
        if unknown := sorted(set(self._weights) - set(expected)):
            raise KeyMismatchError(f"{self.source}: {name} has no tensors {_some(unknown)}.")
        if missing := sorted(set(expected) - set(self._weights)):
            raise KeyMismatchError(f"{self.source} lacks {len(missing)} tensors of {name}: {_some(missing)}.")
        for move in self._moves:
            for target in move.targets:
                got = tuple(self._weights[target].shape)
                if got != expected[target]:
                    raise KeyMismatchError(
                        f"{self.source}: tensor {', '.join(map(repr, move.sources))} has the shape "
                        f"{', '.join(str(self.shape(key)) for key in move.sources)}, which gives {got}; "
                        f"{name} expects {expected[target]} ({target})."
                    )
        try:
            refuse_nonfinite({key: self.tensors[key] for move in self._moves for key in move.sources}, self.source)
        except WeightsError as error:
            raise KeyMismatchError(str(error)) from error
        return dict(self._weights)

    def compare(self, loaded: Mapping[str, torch.Tensor], dtypes: Mapping[str, torch.dtype] | None = None) -> int:
        """Compares what was written with the source, bit by bit, and gives the number of numbers compared.

        Args:
            loaded: The model's tensors, read back.
            dtypes: For each of them the dtype it was written in; the source's if not given.

        Raises:
            KeyMismatchError: One differs.
        """
        dtypes = dtypes or {}
        compared = 0
        for target, tensor in self._filled.items():
            if not same_bits(cast(tensor, dtypes.get(target)), loaded[target]):
                raise KeyMismatchError(f"{self.source}: {target!r} was not written as it was made: {FAULT}.")
        for move in self._moves:
            restored = move.restore([loaded[target] for target in move.targets])
            for key, tensor in zip(move.sources, restored, strict=True):
                source = cast(self.tensors[key], dtypes.get(move.targets[0]))
                if not same_bits(source, tensor):
                    raise KeyMismatchError(f"{self.source}: tensor {key!r} was not written as it was read: {FAULT}.")
                compared += source.numel()
        return compared

    def _arrange(self, arrange: Callable, source: str):
        try:
            return arrange()
        except (RuntimeError, IndexError) as error:
            shapes = ", ".join(str(self.shape(key)) for key in source.split(", "))
            raise KeyMismatchError(
                f"{self.source}: tensor {source!r} of shape {shapes} does not fit: {error}"
            ) from error

    def _record(self, sources: tuple[str, ...], moved: dict[str, torch.Tensor], restore: Callable) -> None:
        for key in sources:
            self._use(key)
        for target, tensor in moved.items():
            if target in self._weights:
                raise KeyMismatchError(f"{self.source}: two tensors were moved to {target!r}: {sources} is one.")
            self._weights[target] = tensor
        self._moves.append(_Move(sources, tuple(moved), restore))

    def _use(self, key: str) -> None:
        if key in self._used:
            raise KeyMismatchError(f"{self.source}: tensor {key!r} was moved or dropped twice.")
        self._used.add(key)


def cast(tensor: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    """Floating tensors in `dtype`, others as they are."""
    return tensor if dtype is None or not tensor.is_floating_point() else tensor.to(dtype)


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors are of the same shape and dtype, and every number has the same bits."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    as_bytes = [tensor.contiguous().flatten().view(torch.uint8) for tensor in (one, other)]
    return torch.equal(*as_bytes)


def _some(keys: Sequence[str]) -> str:
    rest = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    return ", ".join(map(repr, keys[:SHOWN])) + rest
