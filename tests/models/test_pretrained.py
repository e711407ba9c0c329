"""Damaged, foreign or incomplete checkpoints: an error that names the file and the key, and never a random weight."""

import json
import os
import shutil
import struct
import time

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from mosaics import DalleTransformer, DiscreteVAE
from mosaics.models.pretrained import ConfigError
from mosaics.models.weights_check import WeightsError
from testing_utils import tiny_dalle, tiny_dvae

KEY = "decoder.quantizer.codebook"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dvae")
    tiny_dvae().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "dvae")


def refused(folder, error, *expected, load=DiscreteVAE.from_pretrained, **arguments):
    with pytest.raises(error) as caught:
        load(folder, **arguments)
    for text in expected:
        assert text in str(caught.value)
    return str(caught.value)


def rewrite(folder, change):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    save_file(change(tensors) or tensors, path)


def edit_config(folder, **fields):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_a_saved_model_comes_back_bit_by_bit(folder):
    model, info = DiscreteVAE.from_pretrained(folder, output_loading_info=True)
    assert info["missing_keys"] == info["unexpected_keys"] == set()
    for mine, theirs in zip(model.state_dict().values(), tiny_dvae().state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)
    assert model.name_or_path == str(folder) and not model.training
    assert DiscreteVAE.from_pretrained(folder, dtype=torch.bfloat16).dtype == torch.bfloat16
    assert isinstance(AutoModel.from_pretrained(folder), DiscreteVAE)
    assert DiscreteVAE.from_pretrained(folder, pixel_epsilon=0.2).config.pixel_epsilon == 0.2


@pytest.mark.parametrize("load", [DiscreteVAE.from_pretrained, AutoModel.from_pretrained])
def test_the_dtype_may_be_a_name_or_that_of_the_file(folder, load):
    assert load(folder, dtype="auto").dtype == torch.float32
    assert load(folder, dtype="bfloat16").dtype == torch.bfloat16
    DiscreteVAE.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(folder)
    assert load(folder, dtype="auto").dtype == torch.bfloat16


def test_a_variant_is_a_file_of_its_own(folder):
    model = DiscreteVAE.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, variant="fp16")
    assert (folder / "model.fp16.safetensors").is_file()
    refused(folder, WeightsError, "model.safetensors")
    assert torch.equal(DiscreteVAE.from_pretrained(folder, variant="fp16").state_dict()[KEY], model.state_dict()[KEY])


def test_what_transformers_asks_of_every_config_may_be_saved(folder):
    edit_config(folder, tie_word_embeddings=False)
    assert DiscreteVAE.from_pretrained(folder).config.tie_word_embeddings is False


@pytest.mark.parametrize("load", [DiscreteVAE.from_pretrained, AutoModel.from_pretrained])
@pytest.mark.parametrize("kept", [-1, -1000, 200, 4])
def test_a_truncated_file_is_named(folder, load, kept):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    refused(folder, WeightsError, str(path), "again", load=load)


def test_trailing_bytes_are_found(folder):
    with (folder / "model.safetensors").open("ab") as file:
        file.write(b"12345678")
    refused(folder, WeightsError, "model.safetensors", "after its last tensor")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 3\n", "git lfs pull"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "web page"),
        (b"PK\x03\x04" + b"0" * 100, "pickle"),
        (struct.pack("<Q", 2**40) + b"{}", "header"),
        (struct.pack("<Q", 150_000_000) + b"{}", "header"),
        (struct.pack("<Q", 9) + b"not json!", "damaged"),
        (struct.pack("<Q", 4) + b"[12]", "damaged"),
        (struct.pack("<Q", 12) + b'{"a": [1,2]}', "damaged"),
    ],
)
def test_what_is_not_a_safetensors_file_is_called_what_it_is(folder, content, expected):
    (folder / "model.safetensors").write_bytes(content)
    refused(folder, WeightsError, "model.safetensors", expected)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}, "should take bytes 0"),
        ({"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}, "should take bytes 0 to 12"),
        ({"dtype": "F99", "shape": [2], "data_offsets": [0, 8]}, "unknown dtype"),
        ({"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}, "impossible shape"),
        ({"dtype": "F32", "shape": [2], "data_offsets": ["a", None]}, "damaged"),
    ],
)
def test_a_header_that_contradicts_itself_is_refused(folder, entry, expected):
    header = json.dumps({"tensor": entry}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    refused(folder, WeightsError, "model.safetensors", expected)


def test_a_header_with_a_million_entries_is_refused_in_a_second(folder):
    entry = b'"%07d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    header = b"{" + b",".join(entry % number for number in range(1_000_000)) + b"}"
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    start = time.perf_counter()
    refused(folder, WeightsError, "model.safetensors", "header")
    assert time.perf_counter() - start < 1


def test_a_missing_key_is_never_a_random_weight(folder):
    rewrite(folder, lambda tensors: {key: tensor for key, tensor in tensors.items() if key != KEY})
    refused(folder, WeightsError, KEY, "lacks 1 of")
    refused(folder, WeightsError, KEY, strict=False)
    refused(folder, WeightsError, KEY, load=AutoModel.from_pretrained)


def test_keys_under_a_prefix_get_the_prefix_suggested(folder):
    rewrite(folder, lambda tensors: {f"module.{key}": tensor for key, tensor in tensors.items()})
    refused(folder, WeightsError, "'module.'", "Rename")


def test_an_extra_key_passes_only_if_asked(folder):
    rewrite(folder, lambda tensors: tensors | {"scheduler.step": torch.zeros(1)})
    refused(folder, WeightsError, "scheduler.step", "strict=False")
    DiscreteVAE.from_pretrained(folder, strict=False)


def test_a_wrong_shape_names_key_shapes_and_config_field(folder):
    edit_config(folder, num_embeddings=64)
    message = refused(folder, WeightsError, KEY, "(32, 8)", "(64, 8)", "num_embeddings=64")
    assert "model.safetensors" in message
    with pytest.raises(ValueError, match="ignore_mismatched_sizes"):
        DiscreteVAE.from_pretrained(folder, ignore_mismatched_sizes=True)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_counted(folder, value):
    def spoil(tensors):
        tensors[KEY][3, 2:5] = value

    rewrite(folder, spoil)
    refused(folder, WeightsError, KEY, "3 of 256")


def test_large_finite_weights_are_no_error(folder):
    def enlarge(tensors):
        tensors[KEY][:] = 3e38  # their sum overflows

    rewrite(folder, enlarge)
    DiscreteVAE.from_pretrained(folder)


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    model = tiny_dvae()
    with torch.no_grad():
        model.decoder.quantizer.codebook[0, 0] = float("nan")
    with pytest.raises(WeightsError, match=KEY):
        model.save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"num_embeddings": "many"}, "num_embeddings"),
        ({"num_embeddings": -1}, "num_embeddings"),
        ({"num_embedings": 32}, "num_embedings"),
        ({"model_type": "bert"}, "'bert'"),
        ({"trust_remote_code": True}, "trust_remote_code"),
        ({"_attn_implementation_internal": "someone/kernel"}, "_attn_implementation_internal"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "quantization_config"),
    ],
)
def test_a_config_error_names_the_file_and_the_field(folder, fields, expected):
    edit_config(folder, **fields)
    refused(folder, ConfigError, "config.json", expected)


def test_code_named_by_a_config_is_neither_imported_nor_fetched(folder, tmp_path):
    canary = tmp_path / "canary"
    (folder / "evil.py").write_text(f"open({str(canary)!r}, 'w').close()")
    edit_config(folder, auto_map={"AutoModel": "evil.Evil", "AutoConfig": "evil.EvilConfig"})
    DiscreteVAE.from_pretrained(folder)
    assert isinstance(AutoModel.from_pretrained(folder), DiscreteVAE)
    assert not canary.exists()


@pytest.mark.parametrize("content", ["{", "[]", "3", "[" * 10_000])
def test_a_config_that_is_not_an_object_is_refused(folder, content):
    (folder / "config.json").write_text(content)
    refused(folder, ConfigError, "config.json")


def test_a_missing_config_is_no_default_config(folder):
    (folder / "config.json").unlink()
    refused(folder, ConfigError, "config.json is missing")


def test_another_model_class_is_refused(folder):
    refused(folder, ConfigError, "'mosaics_dvae'", "'mosaics_dalle'", load=DalleTransformer.from_pretrained)
    with pytest.raises(TypeError, match="DalleTransformerConfig"):
        DiscreteVAE.from_pretrained(folder, config=tiny_dalle().config)


def test_a_folder_that_does_not_exist_is_named(tmp_path):
    refused(tmp_path / "nowhere", ConfigError, "nowhere")


def test_pickles_are_refused_and_not_opened(folder, tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'canary'}",)

    (folder / "model.safetensors").unlink()
    torch.save(Evil(), folder / "pytorch_model.bin")
    refused(folder, WeightsError, "pytorch_model.bin", "pickle", "convert")
    with pytest.raises(ValueError, match="use_safetensors"):
        DiscreteVAE.from_pretrained(folder, use_safetensors=False)
    assert not (tmp_path / "canary").exists()


@pytest.fixture
def sharded(tmp_path):
    tiny_dvae().save_pretrained(tmp_path / "shards", max_shard_size="60KB")
    return tmp_path / "shards"


def test_shards_come_back(sharded):
    assert len(list(sharded.glob("*.safetensors"))) > 2
    model = DiscreteVAE.from_pretrained(sharded)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), tiny_dvae().parameters(), strict=True))


def test_a_missing_shard_is_named(sharded):
    lost = min(sharded.glob("*.safetensors"))
    lost.unlink()
    refused(sharded, WeightsError, lost.name, "missing")


def test_a_shard_that_is_a_pipe_is_not_opened(sharded):
    lost = min(sharded.glob("*.safetensors"))
    lost.unlink()
    os.mkfifo(lost)
    refused(sharded, WeightsError, lost.name, "regular file")


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/passwd", "..", "a/../../b.safetensors", 7, ""])
def test_a_shard_index_cannot_point_outside(sharded, name):
    path = sharded / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    shutil.copy(min(sharded.glob("*.safetensors")), sharded.parent / "outside.safetensors")
    index["weight_map"][KEY] = name
    path.write_text(json.dumps(index))
    refused(sharded, WeightsError, "index.json")


def test_a_damaged_shard_index_is_named(sharded):
    (sharded / "model.safetensors.index.json").write_text('{"weight_map": 3}')
    refused(sharded, WeightsError, "index.json", "weight_map")


def test_the_embedded_kind_of_codebook_is_the_same_in_every_precision():
    from mosaics.models.codebook_identity import codebook_id

    model = tiny_dvae()
    name = codebook_id(model)
    assert name.startswith("32x8-")
    assert codebook_id(model.to(torch.bfloat16)) == codebook_id(tiny_dvae().half()) == name
    with torch.no_grad():
        model.decoder.quantizer.codebook[5, 3] *= -1
    assert codebook_id(model) != name
