import json
import os
import subprocess
import sys
import textwrap

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from mosaics.data.codes import CodesDataset, read_codes
from mosaics.data.codes_format import CodeGrid, CodesDescription, CodesError
from mosaics.data.codes_writer import CodesShard, CodesWriter

SIZES = {"num_samples": 25, "shard_size": 10, "source": "synthetic"}
DESCRIPTION = CodesDescription((CodeGrid("512x64-aaaa", 512, (4, 4)),), **SIZES)
LEVELS = (CodeGrid("16x4-top", 16, (2, 2)), CodeGrid("32x4-bottom", 32, (4, 4)))
LABELLED = CodesDescription(LEVELS, num_samples=5, shard_size=2, class_names=("lion", "fish"))


def grid(number):
    return torch.randint(0, 512, (4, 4), generator=torch.Generator().manual_seed(number))


def fill(writer, input_ids=False):
    written = []
    for shard in writer:
        for first in range(shard.start, shard.stop, 4):
            numbers = range(first, min(first + 4, shard.stop))
            tokens = torch.tensor([[number, 7, 0] for number in numbers]) if input_ids else None
            shard.append(torch.stack([grid(n) for n in numbers]), [f"caption {n}" for n in numbers], tokens)
        written.append(shard.number)
    return written


@pytest.fixture
def folder(tmp_path):
    writer = CodesWriter(tmp_path / "codes", DESCRIPTION)
    assert fill(writer) == [0, 1, 2]
    writer.finish()
    return tmp_path / "codes"


def test_what_was_written_is_read_in_order(folder):
    dataset = CodesDataset(folder, codebook_id="512x64-aaaa")
    assert len(dataset) == 25 and dataset.codes.grids[0].dtype == np.uint16
    for number in (0, 9, 10, 24, -1):
        sample = dataset[number]
        assert sample["indices"].dtype == torch.int64
        assert torch.equal(sample["indices"], grid(number % 25)) and sample["caption"] == f"caption {number % 25}"
    with pytest.raises(IndexError, match="25 samples"):
        dataset[25]


def test_token_ids_are_kept_if_given(tmp_path):
    writer = CodesWriter(tmp_path, DESCRIPTION)
    fill(writer, input_ids=True)
    writer.finish()
    assert CodesDataset(tmp_path)[12]["input_ids"].tolist() == [12, 7, 0]


def test_processes_share_the_shards_and_another_number_of_them_can_go_on(tmp_path):
    assert fill(CodesWriter(tmp_path, DESCRIPTION, rank=1, world_size=2)) == [1]
    with pytest.raises(CodesError, match=r"lacks 2 shards, first codes-00000\.parquet"):
        CodesWriter(tmp_path, DESCRIPTION).finish()
    with pytest.raises(CodesError, match="lacks 2 of 3 shards"):
        read_codes(tmp_path)
    writer = CodesWriter(tmp_path, DESCRIPTION)
    assert fill(writer) == [0, 2]
    with pytest.raises(CodesError, match=r"no codes\.json"):
        read_codes(tmp_path)
    writer.finish()
    assert [read_codes(tmp_path).captions[n].as_py() for n in (0, 10, 24)] == ["caption 0", "caption 10", "caption 24"]


def test_an_incomplete_folder_can_be_read_on_request(tmp_path):
    fill(CodesWriter(tmp_path, DESCRIPTION, rank=0, world_size=2))
    assert len(read_codes(tmp_path, allow_incomplete=True).grids[0]) == 15


def test_a_failure_inside_a_shard_leaves_nothing_half_written(tmp_path):
    writer = CodesWriter(tmp_path, DESCRIPTION)
    with pytest.raises(RuntimeError, match="interrupted"):
        for shard in writer:
            shard.append(grid(0)[None], ["caption 0"])
            raise RuntimeError("interrupted")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="needs the samples 0 to 9, got 1"):
        for shard in CodesWriter(tmp_path, DESCRIPTION):
            shard.append(grid(0)[None], ["caption 0"])
    assert list(tmp_path.iterdir()) == []


def test_a_kill_while_a_shard_is_written_loses_only_that_shard(tmp_path):
    code = """
        import os, signal, sys
        import pyarrow.parquet as pq
        from test_codes import DESCRIPTION, fill
        from mosaics.data.codes_writer import CodesWriter
        real, calls = pq.write_table, []
        def write_and_die(table, path, **options):
            calls.append(path)
            real(table, path, **options)
            if len(calls) == 2:
                os.truncate(path, 100)
                os.kill(os.getpid(), signal.SIGKILL)
        pq.write_table = write_and_die
        fill(CodesWriter(sys.argv[1], DESCRIPTION))
    """
    environment = os.environ | {"PYTHONPATH": os.path.dirname(__file__)}
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(tmp_path)], env=environment, check=False)
    assert done.returncode == -9
    writer = CodesWriter(tmp_path, DESCRIPTION)
    assert fill(writer) == [1, 2]
    writer.finish()
    assert torch.equal(CodesDataset(tmp_path)[15]["indices"], grid(15))


def test_a_truncated_shard_is_named_when_read_and_encoded_again_when_writing(folder):
    path = folder / "codes-00001.parquet"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(CodesError, match=r"codes-00001\.parquet is truncated"):
        read_codes(folder)
    assert fill(CodesWriter(folder, DESCRIPTION)) == [1]
    assert len(read_codes(folder).grids[0]) == 25


def test_a_flipped_bit_in_a_shard_is_found(folder):
    path = folder / "codes-00001.parquet"
    data = bytearray(path.read_bytes())
    data[120] ^= 1
    path.write_bytes(data)
    with pytest.raises(CodesError, match=r"codes-00001\.parquet is damaged"):
        read_codes(folder)


def test_a_shard_of_another_codebook_is_refused(folder):
    foreign = CodesDescription((CodeGrid("512x64-bbbb", 512, (4, 4)),), **SIZES)
    with pytest.raises(CodesError, match="codebook 512x64-aaaa, not to 512x64-bbbb"):
        read_codes(folder, codebook_id="512x64-bbbb")
    with pytest.raises(CodesError, match="codebook_id '512x64-aaaa' instead of '512x64-bbbb'"):
        CodesWriter(folder, foreign)
    shard = CodesShard(foreign, 2)
    shard.append(torch.stack([grid(n) for n in range(20, 25)]), ["x"] * 5)
    pq.write_table(shard.table(), folder / "codes-00002.parquet")
    with pytest.raises(CodesError, match=r"codes-00002\.parquet was made otherwise.*512x64-bbbb"):
        read_codes(folder)


def test_a_code_beyond_the_codebook_is_refused_on_both_sides(folder):
    shard = CodesShard(DESCRIPTION, 0)
    with pytest.raises(ValueError, match="from 0 to 511, got 512 to 512"):
        shard.append(torch.full((1, 4, 4), 512), ["x"])
    with pytest.raises(ValueError, match="from 0 to 511"):
        shard.append(torch.full((1, 4, 4), -1), ["x"])
    shard.append(torch.stack([grid(n) for n in range(10)]), ["x"] * 10)
    shard._columns["indices"][0][3] = 600
    pq.write_table(shard.table(), folder / "codes-00000.parquet")
    with pytest.raises(CodesError, match=r"codes-00000\.parquet holds code 600"):
        read_codes(folder)


@pytest.mark.parametrize(
    ("indices", "captions", "message"),
    [
        (torch.zeros(1, 4, 5, dtype=torch.long), ["x"], r"integers \(batch, 4, 4\)"),
        (torch.zeros(1, 4, 4), ["x"], "integers"),
        (torch.zeros(2, 4, 4, dtype=torch.long), ["x"], "one row for each sample, got .*'indices': 2, 'caption': 1"),
        (torch.zeros(11, 4, 4, dtype=torch.long), ["x"] * 11, "more were given"),
    ],
)
def test_wrong_samples_are_refused(indices, captions, message):
    with pytest.raises(ValueError, match=message):
        CodesShard(DESCRIPTION, 0).append(indices, captions)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("num_embeddings", 70_000, "num_embeddings must be between"),
        ("size", (0, 4), "size must be one to three positive integers"),
        ("size", (2, 2, 2, 2), "size must be one to three positive integers"),
        ("shard_size", 0, "shard_size must be at least 1"),
        ("grids", (), "at least one CodeGrid"),
        ("class_names", ("a", "a"), "class_names must be different names"),
        ("class_names", (), "at least one"),
    ],
)
def test_a_bad_description_is_refused(field, value, message):
    grid = {"codebook_id": "x", "num_embeddings": 8, "size": (2, 2)}
    with pytest.raises(ValueError, match=message):
        grids = (CodeGrid(**(grid | ({field: value} if field in grid else {}))),)
        CodesDescription(**{"grids": grids, "num_samples": 4, **({} if field in grid else {field: value})})


def levels(number):
    generator = torch.Generator().manual_seed(number)
    return tuple(torch.randint(0, grid.num_embeddings, grid.size, generator=generator) for grid in LEVELS)


def fill_levels(folder, description=LABELLED, captions=None):
    writer = CodesWriter(folder, description)
    for shard in writer:
        numbers = range(shard.start, shard.stop)
        grids = tuple(torch.stack(grid) for grid in zip(*(levels(number) for number in numbers), strict=True))
        labels = torch.tensor([number % 2 for number in numbers])
        shard.append(grids, captions and [captions] * len(numbers), class_labels=labels)
    writer.finish()


def test_several_grids_and_class_labels_are_read_as_they_were_written(tmp_path):
    fill_levels(tmp_path)
    dataset = CodesDataset(tmp_path, codebook_id=("16x4-top", "32x4-bottom"))
    assert dataset.description == LABELLED
    sample = dataset[3]
    assert set(sample) == {"indices", "class_labels"} and sample["class_labels"] == 1
    assert len(sample["indices"]) == 2
    assert all(torch.equal(found, expected) for found, expected in zip(sample["indices"], levels(3), strict=True))
    fill_levels(tmp_path / "both", captions="a lion")
    assert CodesDataset(tmp_path / "both")[0]["caption"] == "a lion"
    with pytest.raises(CodesError, match="16x4-top, 32x4-bottom, not to 32x4-bottom"):
        read_codes(tmp_path, codebook_id="32x4-bottom")


def test_a_sound_has_a_sequence_of_codes(tmp_path):
    description = CodesDescription(CodeGrid("16x4-a", 16, (7,)), num_samples=2)
    writer = CodesWriter(tmp_path, description)
    codes = torch.arange(14).view(2, 7)
    for shard in writer:
        shard.append(codes)
    writer.finish()
    dataset = CodesDataset(tmp_path)
    assert torch.equal(dataset[1]["indices"], codes[1]) and set(dataset[1]) == {"indices"}


def test_a_folder_of_the_first_format_is_read_and_gone_on_with(tmp_path):
    """Written out here as the first format was, so that a change of the writer cannot hide a change of the format."""
    fields = {"codebook_id": "8x4-a", "num_embeddings": 8, "grid_size": [2, 3], "num_samples": 4, "shard_size": 2}
    fields = {"format": "mosaics codes 1", **fields, "source": "old"}
    codes = np.arange(12, dtype=np.uint16) % 8
    table = {
        "indices": pa.FixedSizeListArray.from_arrays(pa.array(codes), 6),
        "caption": pa.array(["a lion", "a fish"], pa.string()),
    }
    metadata = {"mosaics": json.dumps({**fields, "shard": 0})}
    pq.write_table(pa.table(table).replace_schema_metadata(metadata), tmp_path / "codes-00000.parquet")
    description = CodesDescription(CodeGrid("8x4-a", 8, (2, 3)), num_samples=4, shard_size=2, source="old")
    writer = CodesWriter(tmp_path, description)
    for shard in writer:
        assert shard.number == 1, "the old shard is good"
        shard.append(torch.zeros(2, 2, 3, dtype=torch.long), ["a boat", "a boat"])
    writer.finish()
    dataset = CodesDataset(tmp_path, codebook_id="8x4-a")
    assert dataset[1]["indices"].tolist() == [[6, 7, 0], [1, 2, 3]] and dataset[1]["caption"] == "a fish"
    assert json.loads((tmp_path / "codes.json").read_text()) == fields, "and older versions read the whole folder"
    rest = {name: value for name, value in fields.items() if name != "format"}
    assert dataset.fingerprint == json.dumps(rest, sort_keys=True), "runs that began on it resume"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"indices": levels(0)[0][None]}, r"2 grid\(s\) of codes, got 1"),
        ({"indices": [grid[None] for grid in levels(0)][::-1]}, r"integers \(batch, 2, 2\)"),
        ({"class_labels": None}, "class_labels are missing"),
        ({"class_labels": torch.tensor([2])}, "from 0 to 1, got 2"),
        ({"class_labels": torch.tensor([0.5])}, "class_labels must be integers"),
        ({"class_labels": torch.tensor([0, 1])}, "one row for each sample"),
    ],
)
def test_wrong_levels_and_labels_are_refused(changes, message):
    good = {"indices": tuple(grid[None] for grid in levels(0)), "class_labels": torch.tensor([0])}
    with pytest.raises(ValueError, match=message):
        CodesShard(LABELLED, 0).append(**(good | changes))


def test_labels_that_nobody_named_and_columns_that_come_and_go_are_refused():
    with pytest.raises(ValueError, match="no class_names"):
        CodesShard(DESCRIPTION, 0).append(grid(0)[None], class_labels=torch.tensor([0]))
    shard = CodesShard(DESCRIPTION, 0)
    shard.append(grid(0)[None], ["a lion"])
    with pytest.raises(ValueError, match="must hold the same"):
        shard.append(grid(1)[None])


def test_a_damaged_shard_of_several_levels_is_named(tmp_path):
    fill_levels(tmp_path)
    path = tmp_path / "codes-00001.parquet"
    table = pq.read_table(path)
    for column, values, message in (
        ("indices_2", None, "damaged"),
        ("indices_2", pa.array([[0] * 15] * 2, pa.list_(pa.uint16(), 15)), "15 codes a sample, expected 16"),
        ("class_label", pa.array([0, 7], pa.int32()), "class labels from 0 to 7"),
    ):
        broken = table.drop_columns(column)
        broken = broken if values is None else broken.append_column(column, values)
        pq.write_table(broken.replace_schema_metadata(table.schema.metadata), path)
        with pytest.raises(CodesError, match=rf"codes-00001\.parquet.*{message}"):
            read_codes(tmp_path)


def test_an_empty_or_missing_folder_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(CodesError, match="No codes in"):
            read_codes(path)
    with pytest.raises(ValueError, match="rank must be from 0"):
        CodesWriter(tmp_path, DESCRIPTION, rank=2, world_size=2)
