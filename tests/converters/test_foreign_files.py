"""Reading files nobody trusts: what is in them comes out, and nothing of them runs."""

import argparse
import builtins
import io
import os
import pickle
import posix
import struct
import sys
import zipfile
from collections import OrderedDict, defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mosaics.converters.errors import ForeignFileError, RefusedGlobalsError
from mosaics.converters.foreign_files import ForeignFile, open_sources
from mosaics.converters.inert_pickle import InertObject

FORMS = {"zip": {}, "stream": {"_use_new_zipfile_serialization": False}, "zip, protocol 4": {"pickle_protocol": 4}}


@pytest.fixture(params=FORMS)
def options(request):
    return FORMS[request.param]


class Command:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


class State:
    """Pickles as an object whose state is set by a function of its class."""

    def __setstate__(self, state):
        os.system(f"touch {state['marker']}")


def hostile(marker):
    touch = f"touch {marker}"
    state = State()
    state.marker = str(marker)
    code = f"__import__('os').system({touch!r})"
    return {
        "os.system": Command(os.system, touch),
        "posix.system": Command(posix.system, touch),
        "eval": Command(eval, code),
        "exec": Command(exec, code),
        "import": Command(builtins.__import__, "antigravity"),
        "getattr": Command(getattr, Path(marker), "touch"),
        "torch.hub": Command(torch.hub.load, str(marker), "x"),
        "setstate": state,
    }


@pytest.mark.parametrize("kind", hostile(Path("x")))
@pytest.mark.parametrize("nested", [False, True])
def test_a_hostile_file_is_refused_and_nothing_of_it_runs(tmp_path, kind, nested, options):
    marker = tmp_path / "ran"
    payload = hostile(marker)[kind]
    content = {"weights": OrderedDict(w=torch.ones(2)), "more": [({"deep": payload},)]} if nested else payload
    torch.save(content, tmp_path / "x.pt", **options)
    with pytest.raises(RefusedGlobalsError, match=r"x\.pt asks for .*Nothing of the file was run"):
        _ = ForeignFile(tmp_path / "x.pt").content
    assert not marker.exists()
    assert "antigravity" not in sys.modules


def test_the_hostile_files_of_these_tests_do_run_when_unpickled(tmp_path):
    """Or the tests above would prove nothing."""
    marker = tmp_path / "ran"
    for kind in ("os.system", "posix.system", "eval", "setstate"):
        pickle.loads(pickle.dumps(hostile(marker)[kind]))
        assert marker.exists()
        marker.unlink()


def test_all_refused_names_are_listed_at_once(tmp_path, options):
    content = [Command(os.system, "true"), Command(eval, "1"), torch.ones(1), argparse.Namespace(a=1), State()]
    torch.save(content, tmp_path / "x.pt", **options)
    with pytest.raises(RefusedGlobalsError) as caught:
        _ = ForeignFile(tmp_path / "x.pt").content
    names = set(caught.value.names)
    assert {"builtins.eval", f"{__name__}.State"} == names - {"posix.system", "os.system"} and len(names) == 3
    assert all(name in str(caught.value) for name in names)


HAND_WRITTEN = {
    "protocol 0 call": b"cposix\nsystem\n(S'touch {marker}'\ntR.",
    "old instance": b"(S'touch {marker}'\niposix\nsystem\n.",
    "object": b"(cposix\nsystem\nS'touch {marker}'\no.",
    "extension": b"\x80\x02\x82\x01.",
    "state of a function": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}U\x04__x_U\x01ysb.",
    "attribute of a class": b"\x80\x02cargparse\nNamespace\nN}X\x07\x00\x00\x00foreign_X\x01\x00\x00\x00ys\x86b.",
    "attributes of a method": b"\x80\x04\x8c\x08argparse\x8c\x18Namespace.__init__.__dict__\x93.",
    "wrong storage": b"\x80\x02(U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuJ\xff\xff\xff\xfftQ.",
    "other reference": b"\x80\x02U\x03abcQ.",
    "not a pickle": b"\x80\x02\xff\xff",
    "endless stack": b"\x80\x02" + b"]" * 5000 + b"a" * 4999 + b".",
}


@pytest.mark.parametrize("kind", HAND_WRITTEN)
def test_hand_written_pickles_are_refused(tmp_path, kind):
    marker = tmp_path / "ran"
    program = HAND_WRITTEN[kind].replace(b"{marker}", str(marker).encode())
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("archive/data.pkl", program)
    with pytest.raises(ForeignFileError):
        _ = ForeignFile(tmp_path / "x.pt").content
    assert not marker.exists()


def content():
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    return {
        "float32": base,
        "view": base[1:3, ::2],
        "transposed": base.t(),
        "expanded row": base[2],
        "float64": torch.rand(3, dtype=torch.float64),
        "float16": torch.rand(5).half(),
        "bfloat16": torch.rand(2, 2).bfloat16(),
        "int64": torch.tensor([1, -2]),
        "uint8": torch.tensor([[255]], dtype=torch.uint8),
        "bool": torch.tensor([True, False]),
        "scalar": torch.tensor(2.5),
        "empty": torch.empty(0, 3),
        "parameter": torch.nn.Parameter(torch.rand(2)),
        "module": torch.nn.Linear(2, 3).state_dict(),
    }


def test_tensors_come_out_as_torch_reads_them(tmp_path, options):
    saved = content()
    torch.save(saved, tmp_path / "x.pt", **options)
    read = ForeignFile(tmp_path / "x.pt").content
    assert list(read) == list(saved)
    assert type(read["module"]) is OrderedDict and torch.equal(read["module"]["weight"], saved["module"]["weight"])
    for name, tensor in saved.items():
        if name != "module":
            torch.testing.assert_close(read[name], tensor.detach(), rtol=0, atol=0)
            assert read[name].dtype == tensor.dtype


def test_changing_a_tensor_does_not_change_the_file(tmp_path, options):
    torch.save({"w": torch.zeros(8)}, tmp_path / "x.pt", **options)
    before = (tmp_path / "x.pt").read_bytes()
    ForeignFile(tmp_path / "x.pt").content["w"].add_(1)
    assert (tmp_path / "x.pt").read_bytes() == before


def test_settings_beside_the_weights_come_out_as_plain_values(tmp_path, options):
    arguments = argparse.Namespace(size=3, path=Path("a/b"))
    saved = {
        "args": arguments,
        "counts": defaultdict(int, a=1),
        "set": {1, 2},
        "bytes": b"\x00\xff",
        "array": np.arange(6, dtype=np.int32).reshape(2, 3).T,
        "number": np.float64(1.5),
        "size": torch.Size([2, 3]),
        "device": torch.device("cpu"),
        "dtype": torch.float16,
        "nested": ({"x": (1, [None, True])},),
    }
    torch.save(saved, tmp_path / "x.pt", **options)
    read = ForeignFile(tmp_path / "x.pt").content
    assert isinstance(read["args"], InertObject) and read["args"].size == 3
    assert read["args"].foreign_class == "argparse.Namespace" and not hasattr(read["args"], "_get_kwargs")
    assert read["counts"] == {"a": 1} and read["set"] == {1, 2} and read["bytes"] == b"\x00\xff"
    np.testing.assert_array_equal(read["array"], saved["array"])
    assert read["number"] == 1.5 and read["size"] == (2, 3) and read["device"] == "cpu"
    assert read["dtype"] is torch.float16 and read["nested"] == saved["nested"]


def test_a_numpy_array_of_objects_is_refused(tmp_path, options):
    torch.save({"array": np.array([{}, None], dtype=object)}, tmp_path / "x.pt", **options)
    with pytest.raises(ForeignFileError, match="numpy array of dtype"):
        _ = ForeignFile(tmp_path / "x.pt").content


def test_a_module_becomes_its_state_dict_without_its_class(tmp_path, options):
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    torch.save(module, tmp_path / "x.pt", **options)
    file = ForeignFile(tmp_path / "x.pt", {"torch.nn.modules.*"})
    expected = module.state_dict()
    assert set(file.weights) == set(expected)
    assert all(torch.equal(file.weights[key], expected[key]) for key in expected)
    assert type(file.content) is not torch.nn.Sequential


def test_every_truncation_of_a_file_is_an_error_that_names_it(tmp_path, options):
    torch.save({"a": torch.rand(100), "b": torch.rand(50)}, tmp_path / "x.pt", **options)
    whole = (tmp_path / "x.pt").read_bytes()
    short = tmp_path / "short.pt"
    for length in range(1, len(whole), 41):
        short.write_bytes(whole[:length])
        with pytest.raises(ForeignFileError, match=r"short\.pt"):
            file = ForeignFile(short)
            _ = file.content


def rewrite_zip(path, change):
    """The archive with its entries changed."""
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    entries = change(entries)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)


def test_a_storage_shorter_than_its_tensor_is_an_error(tmp_path):
    torch.save({"a": torch.rand(100)}, tmp_path / "x.pt")
    rewrite_zip(tmp_path / "x.pt", lambda entries: {k: v[:-4] if "/data/" in k else v for k, v in entries.items()})
    with pytest.raises(ForeignFileError, match="reaches beyond"):
        _ = ForeignFile(tmp_path / "x.pt").content


@pytest.mark.parametrize(
    ("size", "stride", "offset"), [((8,), (1,), 1), ((3, 3), (3, 1), 0), ((2,), (8,), 0), ((10**6, 8), (0, 1), 0)]
)
def test_a_tensor_larger_than_its_storage_is_an_error(tmp_path, size, stride, offset):
    class Claim:
        def __reduce__(self):
            storage = torch.rand(8).untyped_storage()
            typed = torch.storage.TypedStorage(wrap_storage=storage, dtype=torch.float32, _internal=True)
            return torch._utils._rebuild_tensor_v2, (typed, offset, size, stride, False, OrderedDict())

    torch.save({"a": Claim()}, tmp_path / "x.pt")
    with pytest.raises(ForeignFileError, match="reaches beyond"):
        _ = ForeignFile(tmp_path / "x.pt").content


def test_archives_that_torch_does_not_write_are_refused(tmp_path):
    path = tmp_path / "x.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}, 2))
        archive.writestr("archive/data/0", b"\0" * 10**6)
    with pytest.raises(ForeignFileError, match="compressed"):
        _ = ForeignFile(path).content
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(ForeignFileError, match="none that"):
        _ = ForeignFile(path).content


def test_torchscript_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("x/data.pkl", pickle.dumps({}, 2))
        archive.writestr("x/constants.pkl", pickle.dumps((), 2))
        archive.writestr("x/code/__torch__.py", "")
    with pytest.raises(ForeignFileError, match="TorchScript"):
        _ = ForeignFile(tmp_path / "x.pt").content


def tar_bytes():
    import tarfile

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("storages"), io.BytesIO())
    return buffer.getvalue()


MISTAKEN = {
    "empty": (b"", "is empty"),
    "web page": (b"\n<!DOCTYPE html><html>404</html>", "web page"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "Git LFS pointer"),
    "gzip": (b"\x1f\x8b\x08\0\0\0", "gzip archive"),
    "tar": (tar_bytes(), "tar archive"),
    "plain pickle": (pickle.dumps({"w": [1.0]}, 2), "none that torch.save wrote"),
    "text": (b"layers: 3\n", "holds no weights"),
    "broken safetensors": (struct.pack("<Q", 20) + b'{"a": 1}' + b" " * 12, "header"),
}


@pytest.mark.parametrize("kind", MISTAKEN)
@pytest.mark.parametrize("name", ["x.pt", "model.safetensors"])
def test_what_is_no_checkpoint_is_called_what_it_is(tmp_path, kind, name):
    data, message = MISTAKEN[kind]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ForeignFileError, match=rf"{name}.*{message}"):
        file = ForeignFile(tmp_path / name)
        _ = file.content


def test_a_file_is_known_by_its_content_whatever_it_is_called(tmp_path):
    tensors = {"w": torch.rand(3)}
    save_file(tensors, tmp_path / "a.pkl")
    torch.save(tensors, tmp_path / "b.safetensors")
    torch.save(tensors, tmp_path / "c", _use_new_zipfile_serialization=False)
    (tmp_path / "d.pt").write_text("notes: none")
    kinds = {file.name: file.kind for file in open_sources(tmp_path)}
    assert kinds == {"a.pkl": "safetensors", "b.safetensors": "torch", "c": "torch", "d.pt": "other"}
    for file in open_sources(tmp_path):
        assert file.kind == "other" or torch.equal(file.weights["w"], tensors["w"])


def test_folders_are_opened_without_hidden_files_and_links_to_nowhere(tmp_path):
    (tmp_path / "sub" / ".git").mkdir(parents=True)
    for name in ("b.txt", "sub/a.txt", ".hidden", "sub/.git/x"):
        (tmp_path / name).write_text("x: 1")
    (tmp_path / "nowhere").symlink_to(tmp_path / "missing")
    assert [file.path.relative_to(tmp_path).as_posix() for file in open_sources(tmp_path)] == ["b.txt", "sub/a.txt"]
    with pytest.raises(ForeignFileError, match="does not exist"):
        open_sources(tmp_path / "nowhere")
    with pytest.raises(ForeignFileError, match="no file"):
        open_sources([])
