"""What goes wrong with a repository of the Hub, in words that say what to do, and that never hold a token."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import constants, get_token
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

LOG_IN = "log in with `hf auth login`, set HF_TOKEN, or pass `token`"
TOKEN = re.compile(r"hf_\w{8,}")


class HubError(OSError):
    """A repository that cannot be read or written: the message names it, says why, and what to do."""


def without_tokens(text: str, token: str | bool | None = None) -> str:
    """A text with every token of the Hub in it blacked out, whether given, logged in with, or looking like one."""
    for secret in (token, get_token()):
        if isinstance(secret, str) and secret.strip():
            text = text.replace(secret.strip(), "[token]")
    return TOKEN.sub("[token]", text)


def check_token(token: str | bool | None) -> None:
    """Refuses a token that cannot be sent. The HTTP client would, too, and print it.

    Raises:
        HubError: The token holds characters that no token has, such as a line break.
    """
    if isinstance(token, str) and not (token.isascii() and token.isprintable() and " " not in token):
        raise HubError(
            "The token holds characters that no token of the Hub has (a space or a line break?). Copy it again, or "
            "log in with `hf auth login`."
        )


@contextmanager
def hub_errors(repo_id: str, revision: str | None = None, token: str | bool | None = None) -> Iterator[None]:
    """Turns the many errors of huggingface_hub inside its block into [`HubError`]s about one repository.

    Raises:
        HubError: Whatever the Hub or the way to it failed with. Other errors, of the disk for example, pass unchanged.
    """
    check_token(token)
    try:
        yield
    except HubError:
        raise
    except Exception as error:
        message = explain(error, repo_id, revision)
        if message is None:
            raise
        raise HubError(without_tokens(message, token)) from None  # the cause may hold a token, and says no more


def explain(error: BaseException, repo_id: str, revision: str | None) -> str | None:
    """What an error of huggingface_hub means for a repository; `None` if it is of another kind."""
    if isinstance(error, HfHubHTTPError):
        return _explain_answer(error, repo_id, revision)
    if error.__cause__ is not None and (cause := explain(error.__cause__, repo_id, revision)) is not None:
        return cause
    if isinstance(error, LocalEntryNotFoundError):
        at = f" at revision {revision!r}" if revision else ""
        return (
            f"{repo_id!r}{at} is not, or not wholly, in the cache, and nothing is downloaded now (local_files_only or "
            "HF_HUB_OFFLINE). Load it once with the network, or set `cache_dir` to where it was downloaded to."
        )
    if isinstance(error, OfflineModeIsEnabled):
        return f"{repo_id!r} cannot be asked for: HF_HUB_OFFLINE is set. Unset it, or load what is in the cache."
    if is_transport_error(error):
        return (
            f"The Hub at {constants.ENDPOINT} did not answer, or the connection broke off, at {repo_id!r} "
            f"({type(error).__name__}). Check the network and try again: what has arrived is kept. With "
            "`local_files_only=True` a repository that was loaded before comes from the cache."
        )
    if isinstance(error, LocalTokenNotFoundError):
        return f"A token is needed for {repo_id!r} and there is none: {LOG_IN}."
    if isinstance(error, HFValidationError):
        return f"{repo_id!r} is not a Hub id of the form 'user/name': {error}"
    if isinstance(error, OSError) and "Consistency check failed" in str(error):
        return (
            f"A file of {repo_id!r} arrived with another size than the Hub says, and was thrown away: {error} "
            "Try again; if it stays so, load with `force_download=True`."
        )
    return None


def _explain_answer(error: HfHubHTTPError, repo_id: str, revision: str | None) -> str:
    status, place = error.response.status_code, f"{constants.ENDPOINT}/{repo_id}"
    if isinstance(error, GatedRepoError):
        return f"{repo_id!r} is gated ({status}): ask for access at {place}, then {LOG_IN}."
    if isinstance(error, RevisionNotFoundError):
        return f"{repo_id!r} has no revision {revision!r} ({status}): name a branch, tag or commit of {place}/commits."
    if isinstance(error, EntryNotFoundError):
        return f"{repo_id!r} has no file {error.response.url} ({status})."
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"There is no repository {repo_id!r} on {constants.ENDPOINT}, or it is private and you may not see it "
            f"({status}). Check the name; for a private one, {LOG_IN}, with a token that may read it."
        )
    if status == 401:
        return f"The Hub refused the token for {repo_id!r} (401): it is missing, wrong or expired; {LOG_IN}."
    if status == 403:
        said = f": {error.server_message}" if getattr(error, "server_message", None) else ""
        return f"The Hub forbids that with {repo_id!r} (403{said}): {LOG_IN}, with a token that has the right."
    return f"The Hub answered {status} for {repo_id!r}: {error}. Try again later."


def is_transport_error(error: BaseException | None) -> bool:
    """Whether a request got no whole answer: huggingface_hub's HTTP client is httpx or, in newer versions, a fork."""
    return any(kind.__module__.startswith("httpx") for kind in type(error).__mro__)
