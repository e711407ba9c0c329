"""What the demo's server answers to requests that no browser would send."""

import json
import time
import uuid
from collections.abc import Iterator

import pytest
from PIL import Image

pytest.importorskip("gradio", reason='the demo needs gradio: pip install "mosaics[demo]"')
httpx = pytest.importorskip("httpx", reason="gradio brings httpx")

METADATA = "http://169.254.169.254/latest/meta-data/"


class Visitor:
    """Talks to the server as the browser does: joins the queue, and reads what comes of it."""

    def __init__(self, client):
        self.client = client
        self.config = client.get("config").json()

    def function(self, elem_id: str, event: str) -> dict:
        """What happens on an event of a component, if the server does it."""
        number = next(item["id"] for item in self.config["components"] if item["props"].get("elem_id") == elem_id)
        return next(
            item
            for item in self.config["dependencies"]
            if item["backend_fn"] and [number, event] in [list(target) for target in item["targets"]]
        )

    def place(self, function: dict, label: str) -> int:
        """Where among the values of a request that of a component stands."""
        parts = {item["id"]: item["props"].get("label") for item in self.config["components"]}
        return [parts[number] for number in function["inputs"]].index(label)

    def values(self, function: dict) -> list:
        """The values that the page starts with."""
        parts = {item["id"]: item for item in self.config["components"]}
        return [parts[number]["props"].get("value") for number in function["inputs"]]

    def join(self, function: dict, data: list, check: bool = True) -> str | None:
        """Joins the queue, and returns the session; `None` if the queue is full and `check` is off."""
        session = uuid.uuid4().hex
        body = {"data": data, "fn_index": function["id"], "session_hash": session}
        answer = self.client.post(
            "gradio_api/queue/join", content=json.dumps(body), headers={"Content-Type": "application/json"}
        )
        if not check and answer.status_code == 503:
            return None
        answer.raise_for_status()
        return session

    def ask(self, function: dict, data: list) -> dict:
        """Sends one request, and returns what comes of it."""
        return self.reply(self.join(function, data))

    def reply(self, session: str) -> dict:
        """What comes of the request of a session."""
        latest = time.monotonic() + 30
        with self.client.stream("GET", "gradio_api/queue/data", params={"session_hash": session}) as stream:
            for line in stream.iter_lines():  # heartbeats come in for ever
                reply = json.loads(line[5:]) if line.startswith("data:") else {}
                if reply.get("msg") == "process_completed":
                    return reply
                if time.monotonic() > latest:
                    break
        pytest.fail("the server did not answer in 30 s")


@pytest.fixture(scope="module")
def visitor(server) -> Iterator[Visitor]:
    with httpx.Client(base_url=server, timeout=20, trust_env=False) as client:
        yield Visitor(client)


def error_of(reply: dict) -> str:
    assert reply["success"] is False
    return reply["output"]["error"]


def test_a_request_within_bounds_is_drawn(visitor):
    function = visitor.function("draw-button", "click")
    reply = visitor.ask(function, ["a lion", 2, 2, *visitor.values(function)[3:]])
    assert reply["success"]
    gallery = next(value for value in reply["output"]["data"] if isinstance(value, dict) and "selected_index" in value)
    assert len(gallery["value"]) == 2


@pytest.mark.parametrize(
    ("label", "value", "said"),
    [
        ("What to draw", "lion " * 1000, "characters; at most 500"),
        ("What to draw", "", "prompt is empty"),
        ("What to draw", "\ud800", "surrogate"),
        ("Candidates drawn", 10**6, "greater than maximum value 512"),
        ("Pictures shown", 10**6, "greater than maximum value 64"),
        ("Temperature", -1, "less than minimum value 0"),
        ("Seed", "2**3", "The seed must be an integer"),
        ("What to draw", {"path": METADATA, "meta": {"_type": "gradio.FileData"}}, "not from addresses"),
        ("Seed", {"path": METADATA, "meta": {"_type": "gradio.FileData"}}, "not from addresses"),
    ],
)
def test_a_request_out_of_bounds_gets_a_message(visitor, label, value, said):
    function = visitor.function("draw-button", "click")
    data = ["a lion", 1, 1, *visitor.values(function)[3:]]
    data[visitor.place(function, label)] = value
    assert said in error_of(visitor.ask(function, data))


@pytest.mark.parametrize(
    "path", [METADATA, "file:///etc/passwd", "/etc/passwd", "../../etc/passwd", "/tmp/gradio/../../etc/passwd"]
)
def test_a_picture_is_taken_from_an_upload_and_from_nowhere_else(visitor, path):
    function = visitor.function("reconstruct-upload", "change")
    said = error_of(visitor.ask(function, [{"path": path, "meta": {"_type": "gradio.FileData"}}]))
    assert said is None or "not from addresses" in said  # gradio refuses other paths without a word


def test_an_upload_that_is_no_picture_gets_a_message(visitor):
    sent = visitor.client.post("gradio_api/upload", files={"files": ("a.png", b"<script>alert(1)</script>")})
    path = sent.raise_for_status().json()[0]
    function = visitor.function("reconstruct-upload", "change")
    said = error_of(visitor.ask(function, [{"path": path, "meta": {"_type": "gradio.FileData"}}]))
    assert said == "The upload is no picture that can be read here."


def test_a_decompression_bomb_gets_a_message(visitor, tmp_path):
    Image.new("1", (6000, 6000)).save(tmp_path / "bomb.png")
    data = (tmp_path / "bomb.png").read_bytes()
    sent = visitor.client.post("gradio_api/upload", files={"files": ("bomb.png", data)})
    function = visitor.function("reconstruct-upload", "change")
    reply = visitor.ask(function, [{"path": sent.json()[0], "meta": {"_type": "gradio.FileData"}}])
    assert "above the limit" in error_of(reply)


def test_an_upload_that_is_too_large_is_cut_off(visitor):
    sent = visitor.client.post("gradio_api/upload", files={"files": ("a.png", bytes(10_100_000))})
    assert sent.status_code == 413


@pytest.mark.parametrize("path", ["/etc/passwd", "../../../etc/passwd", "http://169.254.169.254/"])
def test_no_file_of_the_server_is_served(visitor, path):
    answer = visitor.client.get(f"gradio_api/file={path}", follow_redirects=False)
    assert answer.status_code in (403, 404)


def test_a_form_longer_than_any_page_sends_is_not_read(visitor):
    body = json.dumps({"data": ["lion " * 300_000], "fn_index": 0, "session_hash": "a"})
    headers = {"Content-Type": "application/json"}
    assert visitor.client.post("gradio_api/queue/join", content=body, headers=headers).status_code == 413
    chunks = iter([body.encode()])
    assert visitor.client.post("gradio_api/queue/join", content=chunks, headers=headers).status_code == 413


def test_the_endpoints_are_not_an_open_api(visitor):
    assert visitor.client.get("gradio_api/info").json()["named_endpoints"] == {}
    function = visitor.function("draw-button", "click")
    body = {"data": visitor.values(function), "fn_index": function["id"]}
    assert visitor.client.post("gradio_api/run/predict", json=body).status_code >= 400


def test_a_full_queue_refuses_and_the_waiting_are_served_after_a_stop(visitor):
    function, stop = visitor.function("draw-button", "click"), visitor.function("draw-stop", "click")
    settings = visitor.values(function)[3:]
    first = visitor.join(function, ["a lion", 512, 1, *settings])
    waiting = [visitor.join(function, ["", 1, 1, *settings], check=False) for _ in range(30)]
    joined = [session for session in waiting if session is not None]
    assert 1 <= len(joined) <= 17, "one is drawn, 16 wait"
    body = {"data": [], "fn_index": stop["id"], "session_hash": first}
    visitor.client.post("gradio_api/run/predict", json=body).raise_for_status()
    assert "prompt is empty" in error_of(visitor.reply(joined[0]))
