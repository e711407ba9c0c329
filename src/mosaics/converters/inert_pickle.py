r"""Reading pickles without running them.

A pickle is a program: it names functions and calls them. Here every name is answered by this module alone. Containers
are real; tensors, storages and numpy arrays become descriptions ([`TensorRecord`], [`StorageRecord`],
[`ArrayRecord`]), which `torch_files` checks against the file before it makes tensors of them; classes that the caller
lists become empty stubs ([`InertObject`]) that keep the attributes of the object and have no behaviour. Any other name
is refused after the whole pickle was read, so that the error lists all of them. Nothing is ever imported.
"""

import codecs
import math
import pickle
from collections import OrderedDict
from collections.abc import Callable, Collection
from typing import IO, Any, NamedTuple

import numpy as np
import torch

from mosaics.converters.errors import ForeignFileError, RefusedGlobalsError

# Settings and arguments that people keep beside their weights.
COMMON_INERT_CLASSES = frozenset({"argparse.Namespace", "pathlib.*"})
STORAGE_DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "UntypedStorage": torch.uint8,
}
TENSOR_DTYPES = {str(dtype): dtype for dtype in STORAGE_DTYPES.values()}
NUMPY_KINDS = "biufSU"


class StorageRecord(NamedTuple):
    """Numbers in the file: which, of what type, how many; a view starts at an element of its root storage."""

    dtype: torch.dtype
    key: str
    length: int
    first: int = 0


class TensorRecord(NamedTuple):
    """A tensor of the file, not read yet."""

    storage: StorageRecord
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype


class InertType(type):
    """The type of stub classes: they cannot be changed by a pickle."""

    def __setattr__(cls, name: str, value: Any) -> None:
        raise pickle.UnpicklingError(f"sets the attribute {name!r} of a class")


class InertObject(metaclass=InertType):
    """An object of a class of another project, with its attributes and nothing else.

    Attributes:
        foreign_class: Full name of its class.
    """

    foreign_class = ""

    def __new__(cls, *args: Any, **kwargs: Any) -> "InertObject":
        """Takes and forgets any arguments."""
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        """Keeps the attributes, of objects with slots too."""
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, dict):
                self.__dict__.update((name, value) for name, value in part.items() if isinstance(name, str))

    def __setitem__(self, name: Any, value: Any) -> None:
        """Keeps the entries of a dictionary with a class of its own as attributes."""
        self.__setstate__({name: value})

    def __repr__(self) -> str:
        return f"<inert {self.foreign_class}>"


class DtypeRecord:
    """A numpy dtype, by its name."""

    def __init__(self, name: Any, *rest: Any):
        self.name, self.byteorder = name, "="

    def __setstate__(self, state: Any) -> None:
        """The second item of numpy's state is the byte order."""
        self.byteorder = state[1]

    def dtype(self) -> np.dtype:
        """The real one; only of numbers and text."""
        dtype = np.dtype(str(self.name)).newbyteorder(self.byteorder if self.byteorder in ("<", ">") else "=")
        if dtype.kind not in NUMPY_KINDS:
            raise ValueError(f"a numpy array of dtype {self.name!r}")
        return dtype


class ArrayRecord:
    """A numpy array, not made yet."""

    def __init__(self, *args: Any):
        self.state = (1, (0,), DtypeRecord("f4"), False, b"")

    def __setstate__(self, state: Any) -> None:
        """The state numpy gives: version, shape, dtype, whether in Fortran order, bytes."""
        self.state = state

    def array(self) -> np.ndarray:
        """The real one; raises `ValueError` if bytes and shape do not agree."""
        _, shape, record, fortran, data = self.state
        dtype = record.dtype()
        if not isinstance(data, bytes) or len(data) != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"a numpy array of shape {shape} with the wrong number of bytes")
        return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C").copy()


class ScalarRecord(NamedTuple):
    """A numpy scalar, not made yet."""

    record: DtypeRecord
    data: bytes

    def item(self) -> Any:
        """The plain number."""
        (value,) = np.frombuffer(self.data, self.record.dtype())
        return value.item()


class Answer:
    """What a name stands for: it can be called, and not be changed by the pickle."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]):
        self._function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the function of this module."""
        return self._function(*args, **kwargs)

    def __setstate__(self, state: Any) -> None:
        """Refuses."""
        raise pickle.UnpicklingError("sets the state of a function")


def _tensor(storage: Any, offset: int, size: Any, stride: Any, *rest: Any) -> TensorRecord:
    return TensorRecord(storage, offset, tuple(size), tuple(stride), storage.dtype)


def _tensor_of_dtype(storage: Any, offset: int, size: Any, stride: Any, *rest: Any) -> TensorRecord:
    """`_rebuild_tensor_v3`: the storage is of bytes, the dtype comes after requires_grad and hooks."""
    return TensorRecord(storage, offset, tuple(size), tuple(stride), rest[2])


def _parameter(data: Any, *rest: Any) -> Any:
    return data


def _subclass(rebuild: Any, kind: Any, arguments: Any, state: Any) -> Any:
    if not isinstance(rebuild, Answer):
        raise pickle.UnpicklingError("rebuilds a tensor in an unknown way")
    return rebuild(*arguments)


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """How pickles of protocol 2 write bytes."""
    if encoding not in ("latin1", "utf-8", "ascii"):
        raise pickle.UnpicklingError(f"encodes text as {encoding!r}")
    return codecs.encode(text, encoding)


def _bytes(*args: Any) -> bytes:
    if any(not isinstance(arg, bytes | str) for arg in args):
        raise pickle.UnpicklingError("makes bytes of something else")
    return args[0].encode("latin1") if args and isinstance(args[0], str) else b"".join(args)


def _device(*args: Any) -> str:
    return ":".join(map(str, args))


def _dictionary(*args: Any) -> OrderedDict:
    """An `OrderedDict`, or the empty dictionary of a `defaultdict`, whose factory is forgotten."""
    return OrderedDict(args[0]) if args and isinstance(args[0], list | dict) else OrderedDict()


ANSWERS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _dictionary,
    "collections.defaultdict": _dictionary,
    "collections.Counter": _dictionary,
    "builtins.set": set,
    "builtins.frozenset": frozenset,
    "builtins.complex": complex,
    "builtins.bytes": _bytes,
    "builtins.bytearray": _bytes,
    "_codecs.encode": _encode,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_dtype,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._tensor._rebuild_from_type_v2": _subclass,
    "torch.Size": tuple,
    "torch.device": _device,
    "torch.serialization._get_layout": str,
    "numpy.core.multiarray._reconstruct": ArrayRecord,
    "numpy._core.multiarray._reconstruct": ArrayRecord,
    "numpy.core.multiarray.scalar": ScalarRecord,
    "numpy._core.multiarray.scalar": ScalarRecord,
    "numpy.dtype": DtypeRecord,
}
# Named as arguments of the above, never called.
BYSTANDERS = frozenset(
    {
        "builtins.int",
        "builtins.list",
        "builtins.long",
        "numpy.ndarray",
        "torch.Tensor",
        "torch.nn.parameter.Parameter",
    }
)


class InertUnpickler(pickle.Unpickler):
    """An unpickler that knows the names of this module and the stubs of its caller.

    Args:
        file: Pickle, and whatever follows it.
        inert_classes: Full names of classes to stub; `"package.*"` stands for all below a package.
    """

    def __init__(self, file: IO[bytes], inert_classes: Collection[str] = ()):
        super().__init__(file, encoding="latin1")
        self.inert_classes = inert_classes
        self.stubs: dict[str, InertType] = {}
        self.refused: set[str] = set()

    def find_class(self, module_name: str, name: str) -> Any:
        """Answers a name; one that is not known gets a stub and is remembered."""
        full_name = f"{module_name.replace('__builtin__', 'builtins')}.{name}"
        if full_name in ANSWERS:
            return Answer(ANSWERS[full_name])
        if module_name.split(".")[0] == "torch" and name in STORAGE_DTYPES:
            return STORAGE_DTYPES[name]
        if full_name in TENSOR_DTYPES:
            return TENSOR_DTYPES[full_name]
        if full_name not in BYSTANDERS and not is_listed(full_name, self.inert_classes):
            self.refused.add(full_name)
        return self.stubs.setdefault(
            full_name, InertType(name.split(".")[-1], (InertObject,), {"foreign_class": full_name})
        )

    def persistent_load(self, pid: Any) -> Any:
        """The records of storages; the objects that PyTorch before 1.6 marked as modules."""
        if isinstance(pid, tuple) and len(pid) == 4 and pid[0] == "module":
            return pid[1]
        if not isinstance(pid, tuple) or len(pid) not in (5, 6) or pid[0] != "storage":
            raise pickle.UnpicklingError(f"refers to {pid!r:.80}")
        _, dtype, key, _, length = pid[:5]
        view = pid[5] if len(pid) == 6 else None
        first, length = (0, length) if view is None else (view[1], view[2])
        if not isinstance(dtype, torch.dtype) or not all(isinstance(n, int) and n >= 0 for n in (first, length)):
            raise pickle.UnpicklingError(f"has the storage {pid!r:.80}")
        return StorageRecord(dtype, str(key), length, first)


def is_listed(full_name: str, names: Collection[str]) -> bool:
    """Whether a name, or the package it is in as `"package.*"`, is among `names`."""
    return full_name in names or any(
        listed.endswith(".*") and full_name.startswith(listed.removesuffix("*")) for listed in names
    )


def read_pickle(file: IO[bytes], name: str, inert_classes: Collection[str] = ()) -> tuple[Any, frozenset[str]]:
    """Reads the pickle at the position of a file.

    Args:
        file: Pickle, and whatever follows it.
        name: What to call it in a message.
        inert_classes: Classes that become stubs.

    Returns:
        What it holds, and the full names of the stubbed classes.

    Raises:
        RefusedGlobalsError: It names something else.
        ForeignFileError: It is damaged.
    """
    unpickler = InertUnpickler(file, {*COMMON_INERT_CLASSES, *inert_classes})
    content = failure = None
    try:
        content = unpickler.load()
    except Exception as error:  # a hostile pickle can raise anything
        failure = error
    if unpickler.refused:
        names = tuple(sorted(unpickler.refused))
        raise RefusedGlobalsError(
            f"{name} asks for {', '.join(names)}: no weights of a known project need "
            f"{'that' if len(names) == 1 else 'these'}. Nothing of the file was run. If you trust it, load it with "
            "the program that wrote it and save its state dict alone.",
            names,
        ) from None
    if failure is not None:
        reason = f"{type(failure).__name__}: {failure}"
        raise ForeignFileError(f"{name} is damaged, or no pickle of weights ({reason}). Download it again.") from None
    return content, frozenset(unpickler.stubs) - BYSTANDERS
