"""The handlers of the page, in this process."""

import asyncio

import numpy as np
import pytest
import torch
from PIL import Image

gr = pytest.importorskip("gradio", reason="the demo's tests need gradio: pip install mosaics[demo]")

from mosaics.demo import build, launch  # noqa: E402 - after the check for gradio
from mosaics.demo.codebook_tab import PAINT, PICK, CodebookHandlers  # noqa: E402
from mosaics.demo.components import holds_address, with_messages  # noqa: E402

METADATA = "http://169.254.169.254/latest/meta-data/"


def click(x: float, y: float) -> gr.SelectData:
    return gr.SelectData(None, {"index": [x, y], "value": None})


@pytest.fixture
def handlers(pipe_without_clip):
    return CodebookHandlers(pipe_without_clip)


def test_a_click_paints_one_code_and_undo_takes_it_back(handlers):
    _, code, _, canvas, _, _ = handlers.open(None)
    new = (code + 1) % handlers.num_codes
    painted, _, note = handlers.click(canvas, PAINT, new, click(3 * 128 + 5, 128 + 5))[3:]
    assert (painted.indices != canvas.indices).nonzero().tolist() == [[1, 3]]
    assert painted.indices[1, 3] == new
    assert note == f"**Code {new}** in row 2, column 4, where code {code} was."
    back = handlers.undo(painted)[0]
    assert (back.indices == canvas.indices).all()
    with pytest.raises(ValueError, match="nothing to undo"):
        handlers.undo(back)


def test_a_click_in_the_other_mode_chooses_the_code_that_is_there(handlers):
    canvas = handlers.open(None)[3]
    canvas = handlers.click(canvas, PAINT, 5, click(0, 0))[3]
    _, code, _, same, _, note = handlers.click(canvas, PICK, 9, click(1, 1))
    assert code == 5
    assert (same.indices == canvas.indices).all()
    assert note == "**Code 5** in row 1, column 1."


def test_a_click_without_two_coordinates_is_refused(handlers):
    canvas = handlers.open(None)[3]
    event = gr.SelectData(None, {"index": 5, "value": None})
    with pytest.raises(ValueError, match="two coordinates, got 5"):
        handlers.click(canvas, PAINT, 5, event)
    with pytest.raises(ValueError, match="two coordinates, got 5"):
        handlers.choose_at(event)


def test_a_picture_becomes_the_grid_of_its_codes(handlers, tmp_path):
    Image.linear_gradient("L").save(tmp_path / "gradient.png")
    canvas = handlers.read(handlers.open(None)[3], str(tmp_path / "gradient.png"))[0]
    assert len(canvas.indices.unique()) > 1
    painted = torch.from_numpy(np.array(handlers.picture(canvas))).permute(2, 0, 1) / 255
    with torch.no_grad():
        decoded = handlers.pipe.dvae.decode(canvas.indices[None])[0]
    torch.testing.assert_close(painted, decoded, atol=0.5 / 255 + 1e-4, rtol=0)


def test_opening_the_tab_again_keeps_the_canvas(handlers):
    canvas = handlers.open(None)[3]
    assert all(value == gr.skip() for value in handlers.open(canvas))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("<b>top_k</b> is wrong"), "&lt;b&gt;top_k&lt;/b&gt; is wrong"),
        (torch.OutOfMemoryError("at 0x7f"), "Not enough memory"),
        (KeyError("/private/secret"), "its log says why"),
    ],
)
def test_errors_become_messages_without_markup_and_without_secrets(error, said, caplog):
    def fail():
        raise error

    with pytest.raises(gr.Error) as raised:
        with_messages(fail)()
    assert said in raised.value.message
    assert "secret" not in raised.value.message


def test_addresses_are_found_wherever_they_stand():
    upload = {"path": "/tmp/gradio/1/a.png", "url": "http://127.0.0.1/gradio_api/file=/tmp/gradio/1/a.png"}
    assert not holds_address(upload)
    assert not holds_address("a lion at http://example.com")
    for path in (METADATA, "file:///etc/passwd", "ftp://a/b"):
        assert holds_address({"path": path})
        assert holds_address([{"image": {"path": path}}])
    assert holds_address({"path": "a.png", "url": "data:image/png;base64,AAAA"})


def test_only_a_dalle_pipeline_is_built_into_a_page():
    with pytest.raises(TypeError, match="must be a DallePipeline, got str"):
        build("mosaics")


@pytest.mark.parametrize(("name", "value"), [("port", 0), ("port", "7860"), ("host", "")])
def test_a_wrong_address_to_listen_on_is_refused_before_anything_is_loaded(name, value):
    with pytest.raises(ValueError, match=name):
        launch(**{name: value})


def test_the_page_of_a_pipeline_without_clip_has_no_choice_of_candidates(pipe_without_clip):
    async def build_in_a_loop() -> dict:  # without one that runs, gradio makes several and closes none
        return build(pipe_without_clip).config

    components = [component["props"] for component in asyncio.run(build_in_a_loop())["components"]]
    visible = {props["label"]: props["visible"] for props in components if props.get("label")}
    assert visible["Pictures drawn"]
    assert not visible["Candidates drawn"]
    assert "Try" not in visible, "the examples are those of the embedded checkpoint"
