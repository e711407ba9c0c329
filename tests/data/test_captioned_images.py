import io
import json
import subprocess
import sys
import tarfile

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset

from mosaics.data import BadDataError, load_captioned_images, load_captions
from mosaics.data.captioned_images import CaptionedImageStream, SampleReader
from mosaics.data.skipped import SkippedRows
from mosaics.data.tables import open_hub

COUNT = 8


def picture(number):
    return Image.fromarray(np.full((20, 24, 3), (number * 10, 100, 200), np.uint8))


def png(number):
    buffer = io.BytesIO()
    picture(number).save(buffer, "PNG")
    return buffer.getvalue()


def truncated_png(number):
    rng = np.random.default_rng(number)
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()[:-300]


@pytest.fixture
def imagefolder(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    lines = []
    for number in range(COUNT):
        (folder / f"{number}.png").write_bytes(png(number))
        lines.append(json.dumps({"file_name": f"{number}.png", "text": f"picture {number}"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def write_parquet(path, numbers, bad=()):
    images = [{"bytes": truncated_png(n) if n in bad else png(n), "path": f"{n}.png"} for n in numbers]
    features = datasets.Features({"image": datasets.Image(), "caption": datasets.Value("string")})
    table = pa.table({"image": images, "caption": [f"picture {n}" for n in numbers]})
    pq.write_table(table.cast(features.arrow_schema), path)


def write_tar(path, numbers, bad=(), as_json=False):
    with tarfile.open(path, "w") as tar:
        for number in numbers:
            image = truncated_png(number) if number in bad else png(number)
            text = f"picture {number}".encode()
            caption = ("json", json.dumps({"caption": text.decode()}).encode()) if as_json else ("txt", text)
            for kind, data in (("png", image), caption):
                member = tarfile.TarInfo(f"part/{number:04d}.{kind}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def check(sample, number):
    assert sample["caption"] == f"picture {number}"
    assert sample["pixel_values"].shape == (3, 16, 16)
    expected = torch.tensor([number * 10, 100, 200]) / 255
    torch.testing.assert_close(sample["pixel_values"][:, 3, 5], expected)


def source(kind, tmp_path, imagefolder, bad=()):
    if kind == "imagefolder":
        for number in bad:
            (imagefolder / f"{number}.png").write_bytes(truncated_png(number))
        return imagefolder
    if kind == "parquet":
        write_parquet(tmp_path / "data.parquet", range(COUNT), bad)
        return tmp_path / "data.parquet"
    if kind == "parquet folder":
        (tmp_path / "parquet").mkdir()
        write_parquet(tmp_path / "parquet/train-0.parquet", range(5), bad)
        write_parquet(tmp_path / "parquet/train-1.parquet", range(5, COUNT), bad)
        write_parquet(tmp_path / "parquet/test-0.parquet", [30])
        return tmp_path / "parquet"
    (tmp_path / "shards").mkdir()
    write_tar(tmp_path / "shards/0.tar", range(5), bad)
    write_tar(tmp_path / "shards/1.tar", range(5, COUNT), bad, as_json=True)
    return tmp_path / "shards"


KINDS = ["imagefolder", "parquet", "parquet folder", "tar"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_source_gives_the_same_samples_by_number(kind, tmp_path, imagefolder):
    data = load_captioned_images(source(kind, tmp_path, imagefolder), 16, cache_dir=tmp_path / "cache")
    assert len(data) == COUNT and str(data.report).startswith("8 rows, 8 usable, 0 bad")
    for number in range(COUNT):
        check(data[number], number)
    check(data[-1], COUNT - 1)
    with pytest.raises(IndexError, match="8 rows"):
        data[COUNT]


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_gives_every_sample_once_in_an_order_of_seed_and_epoch(kind, tmp_path, imagefolder):
    path = source(kind, tmp_path, imagefolder)

    def order(seed, epoch, **options):
        stream = load_captioned_images(path, 16, streaming=True, seed=seed, cache_dir=tmp_path / "cache", **options)
        assert isinstance(stream, IterableDataset)
        stream.set_epoch(epoch)
        samples = list(stream)
        for sample in samples:
            check(sample, int(sample["caption"].split()[1]))
        return [int(sample["caption"].split()[1]) for sample in samples]

    assert sorted(order(0, 0)) == list(range(COUNT)) and order(0, 0) == order(0, 0)
    assert len({tuple(order(seed, epoch)) for seed, epoch in ((0, 0), (0, 1), (1, 0), (2, 3))}) > 2
    assert order(0, 0, shuffle_buffer=0) == list(range(COUNT))


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_corrupt_picture_is_skipped_recorded_with_its_path_and_the_run_goes_on(
    kind, streaming, tmp_path, imagefolder
):
    record = tmp_path / "run/skipped.jsonl"
    path = source(kind, tmp_path, imagefolder, bad=[3])
    data = load_captioned_images(path, 16, streaming=streaming, skipped_path=record, cache_dir=tmp_path / "cache")
    for _ in range(2):
        samples = list(data) if streaming else [data[number] for number in range(COUNT)]
        captions = sorted(sample["caption"] for sample in samples)
        assert "picture 3" not in captions and len(captions) == (COUNT - 1 if streaming else COUNT)
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    assert len(lines) == 1 and "3" in lines[0]["name"] and "truncated or damaged" in lines[0]["reason"]
    assert len(data.skipped) == 1
    if not streaming:
        assert data[3]["caption"] == "picture 4"  # the next good one stands in


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("kind", ["imagefolder", "parquet", "tar"])
def test_too_many_bad_pictures_stop_the_run_with_a_summary(kind, streaming, tmp_path, imagefolder):
    path = source(kind, tmp_path, imagefolder, bad=range(COUNT))
    data = load_captioned_images(path, 16, streaming=streaming, cache_dir=tmp_path / "cache", max_bad=0.3)
    with pytest.raises(BadDataError, match=r"3 of 8 rows .* are bad, more than the 2 that max_bad"):
        list(data) if streaming else data[0]


def test_a_stream_of_datasets_is_read_shuffled_and_stopped_like_the_others(tmp_path, imagefolder):
    source("imagefolder", tmp_path, imagefolder, bad=[5])

    def stream(max_bad):
        rows = open_hub(str(imagefolder), None, "train", True, "auto", tmp_path / "cache")
        return CaptionedImageStream(
            rows, SampleReader(16, rows.image_column, "auto"), SkippedRows("set", max_bad), seed=1
        )

    data, orders = stream(0.01), []
    for epoch in (0, 0, 1):
        data.set_epoch(epoch)
        orders.append([sample["caption"] for sample in data])
    assert orders[0] == orders[1] and sorted(orders[0]) == [f"picture {n}" for n in range(COUNT) if n != 5]
    assert len(data.skipped) == 1 and "5.png" in next(iter(data.skipped.reasons))
    source("imagefolder", tmp_path, imagefolder, bad=range(COUNT))
    with pytest.raises(BadDataError, match="3 of 1000 rows"):
        list(stream(0.002))


def test_all_bad_ends_even_when_everything_is_tolerated(tmp_path, imagefolder):
    path = source("imagefolder", tmp_path, imagefolder, bad=range(COUNT))
    with pytest.raises(BadDataError, match="Every row of"):
        load_captioned_images(path, 16, max_bad=1)[2]
    with pytest.raises(BadDataError, match="gave no usable row"):
        list(load_captioned_images(path, 16, max_bad=1, streaming=True))
    with pytest.raises(BadDataError, match="1 of 8 rows"):
        load_captioned_images(path, 16, max_bad=0)[2]


def test_processes_share_the_record_and_the_limit(tmp_path, imagefolder):
    path = source("imagefolder", tmp_path, imagefolder, bad=[1, 4])
    record = tmp_path / "skipped.jsonl"
    first, second = (load_captioned_images(path, 16, max_bad=0.2, skipped_path=record) for _ in range(2))
    first[1]
    with pytest.raises(BadDataError, match="2 of 8 rows"):
        second[4]
    later = load_captioned_images(path, 16, max_bad=0.2, skipped_path=record)
    later[1]  # what an earlier run recorded does not count
    loader = DataLoader(load_captioned_images(path, 16, max_bad=0.3), batch_size=4, num_workers=2)
    assert sum(len(batch["caption"]) for batch in loader) == COUNT


def test_workers_share_a_stream_without_repeating(imagefolder):
    stream = load_captioned_images(imagefolder, 16, streaming=True)
    captions = [batch["caption"][0] for batch in DataLoader(stream, batch_size=1, num_workers=2)]
    assert sorted(captions) == [f"picture {number}" for number in range(COUNT)]


def test_bad_metadata_lines_are_named_by_file_and_line(imagefolder, tmp_path):
    lines = (imagefolder / "metadata.jsonl").read_text().splitlines()
    lines[1] = '{"file_name": "1.png", "text": '
    lines[2] = '{"file_name": "2.png", "text": null}'
    lines[3] = '{"file_name": "3.png", "text": 7}'
    lines[4] = '{"file_name": "missing.png", "text": "x"}'
    lines[5] = '{"file_name": "../secret.png", "text": "x"}'
    lines[6] = '["6.png", "x"]'
    (tmp_path / "secret.png").write_bytes(png(0))
    (imagefolder / "metadata.jsonl").write_text("\n".join(lines))
    record = tmp_path / "skipped.jsonl"
    data = load_captioned_images(imagefolder, 16, max_bad=0.9, skipped_path=record)
    assert len(data) == 2 and data.report.rows == 8 and len(data.report.bad) == 6
    reasons = {
        entry["name"].rsplit("/")[-1]: entry["reason"] for entry in map(json.loads, record.read_text().splitlines())
    }
    for line, reason in [
        (2, "no JSON"),
        (3, "must be a string, got NoneType"),
        (4, "must be a string, got int"),
        (5, "there is no file missing.png"),
        (6, "outside the folder"),
        (7, "no file_name"),
    ]:
        assert reason in reasons[f"metadata.jsonl:{line}"]
    with pytest.raises(BadDataError, match=r"metadata\.jsonl:2"):
        load_captioned_images(imagefolder, 16, max_bad=0.01)


def test_unlisted_and_duplicate_files_are_counted(imagefolder):
    (imagefolder / "deep").mkdir()
    (imagefolder / "deep/extra.jpg").write_bytes(png(1))
    (imagefolder / "notes.txt").write_text("no picture")
    with open(imagefolder / "metadata.jsonl", "a") as file:
        file.write('{"file_name": "0.png", "text": "another caption"}\n')
    report = load_captioned_images(imagefolder, 16).report
    assert (report.rows, report.unlisted, report.duplicates) == (9, 1, 1)


def test_a_folder_of_the_split_is_taken_and_a_missing_split_is_refused(imagefolder, tmp_path):
    whole = tmp_path / "whole"
    whole.mkdir()
    imagefolder.rename(whole / "validation")
    assert len(load_captioned_images(whole, 16, split="validation")) == COUNT
    with pytest.raises(BadDataError, match="expected metadata"):
        load_captioned_images(whole, 16)
    with pytest.raises(BadDataError, match="has no split 'test'"):
        load_captioned_images(whole / "validation", 16, split="test")
    path = source("parquet folder", tmp_path, imagefolder)
    test = load_captioned_images(path, 16, split="test", cache_dir=tmp_path / "cache")
    assert len(test) == 1 and test[0]["caption"] == "picture 30"


@pytest.mark.parametrize("keep", [512 * 3, 512 * 7 + 10, -1, -10_000])
def test_a_truncated_tar_is_named_with_what_is_whole(tmp_path, keep):
    path = tmp_path / "shard-007.tar"
    write_tar(path, range(6))
    whole = path.read_bytes()
    end = whole.rstrip(b"\0")
    path.write_bytes(whole[: len(end) // 512 * 512 + 512] if keep == -1 else whole[:keep])
    with pytest.raises(BadDataError, match=r"shard-007\.tar is truncated or no tar .* rows in it are whole"):
        load_captioned_images(path, 16)


def test_a_compressed_tar_and_a_truncated_parquet_are_named(tmp_path):
    write_tar(tmp_path / "a.tar", range(2))
    with tarfile.open(tmp_path / "b.tar", "w:gz") as tar:
        tar.add(tmp_path / "a.tar")
    with pytest.raises(BadDataError, match=r"b\.tar is truncated or no tar"):
        load_captioned_images(tmp_path / "b.tar", 16)
    write_parquet(tmp_path / "c.parquet", range(3))
    (tmp_path / "c.parquet").write_bytes((tmp_path / "c.parquet").read_bytes()[:-20])
    with pytest.raises(BadDataError, match=r"c\.parquet is truncated"):
        load_captioned_images(tmp_path / "c.parquet", 16)


def test_a_tar_row_without_a_caption_is_recorded(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, data in [("0.png", png(0)), ("0.txt", b"picture 0"), ("1.png", png(1)), ("2.txt", b"x")]:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    data = load_captioned_images(tmp_path / "a.tar", 16, max_bad=0.7)
    assert len(data) == 1 and [bad.name[-2:] for bad in data.report.bad] == [":1", ":2"]


def test_a_saved_dataset_and_one_of_several_captions_are_read(tmp_path):
    rows = {"image": [picture(n) for n in range(3)], "captions": [[f"picture {n}", f"picture {n}"] for n in range(3)]}
    features = datasets.Features({"image": datasets.Image(), "captions": datasets.List(datasets.Value("string"))})
    table = datasets.Dataset.from_dict(rows, features=features)
    table.save_to_disk(tmp_path / "saved")
    check(load_captioned_images(tmp_path / "saved", 16)[2], 2)
    datasets.DatasetDict({"train": table}).save_to_disk(tmp_path / "dict")
    assert len(list(load_captioned_images(tmp_path / "dict", 16, streaming=True))) == 3
    with pytest.raises(BadDataError, match="no split 'test'; it has"):
        load_captioned_images(tmp_path / "dict", 16, split="test")


def test_one_of_several_captions_is_drawn_from_torchs_generator(imagefolder):
    (imagefolder / "metadata.jsonl").write_text('{"file_name": "0.png", "captions": ["a", "b"]}')
    data = load_captioned_images(imagefolder, 16)
    drawn = []
    for seed in range(20):
        torch.manual_seed(seed)
        drawn.append(data[0]["caption"])
        torch.manual_seed(seed)
        assert data[0]["caption"] == drawn[-1]
    assert set(drawn) == {"a", "b"}


def test_columns_are_chosen_by_name_and_missing_ones_are_named(tmp_path):
    write_parquet(tmp_path / "a.parquet", range(3))
    options = {"cache_dir": tmp_path / "cache"}
    with pytest.raises(BadDataError, match=r"no column 'photo'; it has \['caption', 'image'\]"):
        load_captioned_images(tmp_path / "a.parquet", 16, image_column="photo", **options)
    table = pq.read_table(tmp_path / "a.parquet").replace_schema_metadata(None)
    pq.write_table(table.rename_columns(["photo", "words"]), tmp_path / "b.parquet")
    with pytest.raises(BadDataError, match="no picture column among"):
        load_captioned_images(tmp_path / "b.parquet", 16, **options)
    check(
        load_captioned_images(tmp_path / "b.parquet", 16, image_column="photo", caption_column="words", **options)[1],
        1,
    )
    with pytest.raises(BadDataError, match="No column 'text'"):
        data = load_captioned_images(tmp_path / "a.parquet", 16, caption_column="text", **options)
        [data[number] for number in range(3)]


def test_what_is_not_there_is_not_looked_for_elsewhere(tmp_path, imagefolder):
    for name in (tmp_path / "nowhere", "./nowhere", "nowhere.parquet", "a/b/c"):
        with pytest.raises(FileNotFoundError, match="There is no dataset at"):
            load_captioned_images(name, 16)
    with pytest.raises(BadDataError, match="expected metadata"):
        load_captioned_images(tmp_path, 16)
    (imagefolder / "metadata.jsonl").write_text("\n")
    with pytest.raises(BadDataError, match="no usable row: 0 rows"):
        load_captioned_images(imagefolder, 16)


@pytest.mark.parametrize("kind", KINDS)
def test_captions_alone_are_read_without_decoding_a_picture(kind, tmp_path, imagefolder):
    path = source(kind, tmp_path, imagefolder, bad=[2])
    captions = load_captions(path, cache_dir=tmp_path / "cache")
    assert sorted(captions) == [f"picture {number}" for number in range(COUNT)]


@pytest.mark.parametrize(("argument", "value"), [("image_size", 0), ("max_bad", 2)])
def test_a_bad_number_is_named(imagefolder, argument, value):
    with pytest.raises(ValueError, match=argument):
        load_captioned_images(imagefolder, **{"image_size": 16, argument: value})


def test_the_fingerprint_changes_with_the_captions(imagefolder):
    before = load_captioned_images(imagefolder, 16).fingerprint
    assert load_captioned_images(imagefolder, 16).fingerprint == before
    path = imagefolder / "metadata.jsonl"
    path.write_text(path.read_text().replace("picture 1", "photo 1"))
    assert load_captioned_images(imagefolder, 16).fingerprint != before


def test_importing_the_package_does_not_import_datasets():
    code = (
        "import sys, mosaics, mosaics.data; print(*[m for m in ('datasets', 'pandas', 'pyarrow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
