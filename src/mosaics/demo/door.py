"""What is turned away before gradio sees it."""

from typing import Any

MAX_FORM_BYTES = 1_000_000


class Door:
    """ASGI middleware that refuses requests no page of ours makes: for an address, and with more than a form in them.

    gradio fetches `/file=http://...` for whoever asks, and reads a form of any length into memory. Uploads have a
    limit of their own.

    Args:
        app: The application behind the door.
    """

    def __init__(self, app: Any):
        self.app = app

    async def __call__(self, scope: dict, receive: Any, send: Any) -> None:
        """Passes a request on, or answers it with 403 or 413."""
        status = refusal(scope) if scope["type"] == "http" else None
        if status is None:
            await self.app(scope, receive, send)
            return
        headers = [(b"content-type", b"text/plain"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"refused"})


def middleware() -> list[Any]:
    """The door as gradio's application takes it."""
    from starlette.middleware import Middleware  # comes with gradio

    return [Middleware(Door)]


def refusal(scope: dict) -> int | None:
    """The HTTP status with which a request is refused, or `None` if it is not."""
    if "://" in scope["path"]:
        return 403
    if scope["method"] != "POST" or scope["path"].rstrip("/").endswith("/upload"):
        return None
    length = dict(scope["headers"]).get(b"content-length", b"")
    return None if length.isdigit() and int(length) <= MAX_FORM_BYTES else 413
