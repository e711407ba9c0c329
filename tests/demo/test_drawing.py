import sys
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from mosaics.demo import launch
from mosaics.demo.drawing import DrawingRequest, Sampling, draw, python_lines
from mosaics.demo.limits import read_seed, read_upload
from mosaics.demo.stopping import StopSignals
from mosaics.pipelines.running import DrawingStopped, IncompleteResultWarning

DEFAULT = Sampling(temperature=0.7, top_k=None, top_p=None, guidance_scale=1.5, seed=3)


def request_for(prompt: str = "a lion on a blue background", candidates: float = 2, shown: float = 2, **fields):
    return DrawingRequest(prompt, candidates, shown, **{"sampling": DEFAULT, **fields})


def pixels_of(image: Image.Image) -> np.ndarray:
    return np.asarray(image)


def test_the_best_pictures_come_first_and_the_same_seed_draws_them_again(pipe):
    pictures, again = draw(pipe, request_for(candidates=3)), draw(pipe, request_for(candidates=3))
    assert len(pictures) == 2
    assert pictures[0].score >= pictures[1].score
    assert [picture.caption for picture in pictures] == [f"{picture.score:.3f}" for picture in pictures]
    for one, other in zip(pictures, again, strict=True):
        assert (pixels_of(one.image) == pixels_of(other.image)).all()
        assert one.seed == other.seed


def test_the_python_lines_draw_the_picture_again(pipe, tmp_path, monkeypatch):
    picture = draw(pipe, request_for(prompt='a  lion\'s "mane" \\ on blue'))[1]
    lines = python_lines(pipe, picture)
    monkeypatch.chdir(tmp_path)
    exec(lines, {})
    assert (pixels_of(Image.open("picture.png")) == pixels_of(picture.image)).all()


def test_the_python_lines_complete_the_picture_again(pipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.linear_gradient("L").convert("RGB").resize((90, 70)).save("start.png")
    drawing = request_for(image=read_upload("start.png", 64), prefix_rows=8)
    picture = draw(pipe, drawing)[0]
    exec(python_lines(pipe, picture), {})
    assert (pixels_of(Image.open("picture.png")) == pixels_of(picture.image)).all()


def test_the_python_lines_name_no_folder_of_the_server(pipe_without_clip, tmp_path):
    folder = tmp_path / "secret" / "lions"
    folder.mkdir(parents=True)
    picture = draw(pipe_without_clip, request_for(candidates=1, shown=1))[0]
    assert "pipe = ...  # the pipeline" in python_lines(pipe_without_clip, picture)
    pipe_without_clip.register_to_config(_name_or_path=str(folder))
    lines = python_lines(pipe_without_clip, picture)
    assert "from_pretrained('lions')" in lines
    assert "secret" not in lines


def test_without_clip_as_many_are_drawn_as_shown_and_none_has_a_score(pipe_without_clip):
    pictures = draw(pipe_without_clip, request_for(candidates=5, shown=2))
    assert [picture.score for picture in pictures] == [None, None]
    assert [picture.caption for picture in pictures] == [None, None]


def test_progress_counts_every_code_of_every_candidate(pipe_without_clip):
    seen = []
    draw(pipe_without_clip, request_for(candidates=3, shown=3), report=lambda done, total: seen.append((done, total)))
    assert seen == [(3 * step, 3 * 16) for step in range(1, 17)]


def test_progress_ends_at_the_total_when_a_picture_is_completed(pipe_without_clip):
    seen = []
    drawing = request_for(image=torch.rand(3, 16, 16), prefix_rows=1)
    draw(pipe_without_clip, drawing, report=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (2 * 12, 2 * 12)


def test_a_stop_before_the_first_picture_ends_the_drawing_at_the_next_code(pipe_without_clip):
    stop, seen = threading.Event(), []

    def report(done, total):
        seen.append(done)
        stop.set()

    with pytest.raises(DrawingStopped):
        draw(pipe_without_clip, request_for(), report, stop)
    assert len(seen) == 1
    assert len(draw(pipe_without_clip, request_for())) == 2, "the pipeline draws again afterwards"


def test_a_stop_keeps_the_candidates_finished_by_then(pipe_without_clip, monkeypatch):
    monkeypatch.setattr(type(pipe_without_clip), "_default_batch_size", lambda self, guidance_scale: 1)
    stop = threading.Event()

    def report(done, total):
        if done > 16:  # the second picture has begun
            stop.set()

    with pytest.warns(IncompleteResultWarning):
        kept = draw(pipe_without_clip, request_for(candidates=3, shown=3), report, stop)
    whole = draw(pipe_without_clip, request_for(candidates=3, shown=3))
    assert len(kept) == 1
    assert (pixels_of(kept[0].image) == pixels_of(whole[0].image)).all()


def test_a_stop_reaches_the_drawings_of_its_session_alone():
    signals = StopSignals()
    with signals.running("a") as mine, signals.running("b") as other:
        assert signals.stop("a") == 1
        assert mine.is_set()
        assert not other.is_set()
    assert signals.stop("b") == 0


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"candidates": 1_000_000}, "candidates must be an integer from 1 to 512, got 1e"),
        ({"candidates": 0}, "candidates must be an integer from 1 to 512"),
        ({"candidates": 2.5}, "candidates must be an integer"),
        ({"candidates": float("nan")}, "candidates must be an integer"),
        ({"candidates": "16"}, "candidates must be an integer"),
        ({"shown": 65}, "shown must be an integer from 1 to 64"),
        ({"prompt": "  "}, "empty"),
        ({"prompt": None}, "empty"),
        ({"prompt": "lion " * 101}, "505 characters; at most 500"),
    ],
)
def test_a_request_out_of_bounds_is_refused_by_name(fields, said):
    with pytest.raises(ValueError, match=said):
        request_for(**fields)


@pytest.mark.parametrize("text", ["", "-1", "1.5", "1e3", "0x10", str(2**64), "9" * 5000, "lion", None])
def test_a_seed_that_is_no_seed_is_refused(text):
    with pytest.raises(ValueError, match="The seed must be an integer from 0 to"):
        read_seed(text)


def test_the_ends_of_the_sliders_leave_the_arguments_out():
    sampling = Sampling.from_controls(1, 0, 1, 1, " 18446744073709551615 ")
    assert sampling.arguments() == {"temperature": 1.0, "guidance_scale": 1.0, "seed": 2**64 - 1}
    assert Sampling.from_controls(1, 5, 0.5, 1, "0").arguments()["top_k"] == 5


def test_without_gradio_the_page_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "mosaics.demo.page", raising=False)
    with pytest.raises(ImportError, match=r"pip install \"mosaics\[demo\]\""):
        launch()


def test_an_upload_is_cut_to_its_central_square(tmp_path):
    picture = Image.new("RGB", (96, 32), "red")
    picture.paste("blue", (32, 0, 64, 32))
    picture.save(tmp_path / "wide.png")
    pixels = read_upload(tmp_path / "wide.png", 16)
    assert pixels.shape == (3, 16, 16)
    assert pixels[2].min() == 1


def test_uploads_that_are_no_fair_pictures_are_refused_without_naming_a_place(tmp_path):
    bomb, text, large = tmp_path / "bomb.png", tmp_path / "text.png", tmp_path / "large.png"
    Image.new("1", (9000, 9000)).save(bomb)  # 81 million pixels in 10 kB
    text.write_text("<svg onload=alert(1)>")
    large.write_bytes(bytes(10_000_001))
    for path, said in (
        (bomb, "above the limit"),
        (text, "no picture"),
        (large, "bytes; at most"),
        (None, "no picture"),
    ):
        with pytest.raises(ValueError, match=said) as error:
            read_upload(path, 16)
        assert str(tmp_path) not in str(error.value)
