import os
import subprocess
import sys
import textwrap

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from mosaics.data.codes import CodesDataset, CodesDescription, CodesError, CodesShard, CodesWriter, read_codes

DESCRIPTION = CodesDescription("512x64-aaaa", 512, (4, 4), num_samples=25, shard_size=10, source="synthetic")


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
    assert len(dataset) == 25 and dataset.codes.indices.dtype == np.uint16
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
    assert len(read_codes(tmp_path, allow_incomplete=True).indices) == 15


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
        from mosaics.data.codes import CodesWriter
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
    assert len(read_codes(folder).indices) == 25


def test_a_flipped_bit_in_a_shard_is_found(folder):
    path = folder / "codes-00001.parquet"
    data = bytearray(path.read_bytes())
    data[120] ^= 1
    path.write_bytes(data)
    with pytest.raises(CodesError, match=r"codes-00001\.parquet is damaged"):
        read_codes(folder)


def test_a_shard_of_another_codebook_is_refused(folder):
    foreign = CodesDescription("512x64-bbbb", 512, (4, 4), num_samples=25, shard_size=10, source="synthetic")
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
    shard._indices[0][3] = 600
    pq.write_table(shard.table(), folder / "codes-00000.parquet")
    with pytest.raises(CodesError, match=r"codes-00000\.parquet holds code 600"):
        read_codes(folder)


@pytest.mark.parametrize(
    ("indices", "captions", "message"),
    [
        (torch.zeros(1, 4, 5, dtype=torch.long), ["x"], r"integers \(batch, 4, 4\)"),
        (torch.zeros(1, 4, 4), ["x"], "integers"),
        (torch.zeros(2, 4, 4, dtype=torch.long), ["x"], "2 grids came with 1 captions"),
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
        ("grid_size", (0, 4), "grid_size must be two positive integers"),
        ("shard_size", 0, "shard_size must be at least 1"),
    ],
)
def test_a_bad_description_is_refused(field, value, message):
    fields = {"codebook_id": "x", "num_embeddings": 8, "grid_size": (2, 2), "num_samples": 4, field: value}
    with pytest.raises(ValueError, match=message):
        CodesDescription(**fields)


def test_an_empty_or_missing_folder_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(CodesError, match="No codes in"):
            read_codes(path)
    with pytest.raises(ValueError, match="rank must be from 0"):
        CodesWriter(tmp_path, DESCRIPTION, rank=2, world_size=2)
