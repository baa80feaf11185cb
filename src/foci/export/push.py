"""Puts an export on the hub, by huggingface_hub: a repository that others cannot see, unless it is asked for."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import (  # type: ignore[attr-defined]
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from foci.system.files import LOCK


class Hub:
    """A repository of the hub that an export is put into.

    `private` says who may see it afterwards; `opens`, after `check`, that it is private now and will not be.
    """

    def __init__(self, repo: str, *, private: bool = True) -> None:
        self.repo, self.private, self.opens = repo, private, False
        self._api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))

    def check(self) -> None:
        """Raises ValueError where the name is wrong, nobody is logged in, or a repository is there that others see.

        Nothing is changed. Called before anything is computed.
        """
        try:
            validate_repo_id(self.repo)
        except HFValidationError as error:
            raise ValueError(f"--push {self.repo!r} is no name of a repository ({error}); write OWNER/NAME") from None
        if get_token() is None:
            raise ValueError(
                f"--push {self.repo} needs a token of the hub, got none; log in with: hf auth login, or set HF_TOKEN"
            )
        with self._told("reached"):
            self._api.whoami()
            try:
                there = self._api.model_info(self.repo)
            except RepositoryNotFoundError:
                return
        self.opens = bool(there.private) and not self.private
        if self.private and not there.private:
            raise ValueError(
                f"the repository {self.repo} is there and public: everybody would see this model. Add --public if they "
                "may, or name another one"
            )

    def push(self, folder: Path, message: str) -> str:
        """Makes the repository where it is not there and uploads the folder's files in one commit; returns its page.

        The hub leaves who sees a repository that is there as it was; one that is to be public is made so afterwards.
        """
        with self._told("written"):
            page = self._api.create_repo(self.repo, private=self.private, exist_ok=True)
            self._api.upload_folder(
                repo_id=self.repo, folder_path=folder, commit_message=message, ignore_patterns=[LOCK]
            )
            if self.opens:
                self._api.update_repo_settings(self.repo, private=False)
        return str(page)

    @contextlib.contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Turns the errors of the hub and of the network into one paragraph."""
        try:
            yield
        except (HTTPError, OSError, LocalTokenNotFoundError, OfflineModeIsEnabled) as error:
            status = getattr(getattr(error, "response", None), "status_code", None)
            reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
            cure = {
                401: "log in again with: hf auth login",
                403: "your token may not write there; make one that may, on the hub's page of tokens",
            }.get(status or 0, "look at the network, and HF_ENDPOINT where you have your own hub")
            kept = "The export is whole, push it again with the same command. " if what == "written" else ""
            known = isinstance(error, HfHubHTTPError) and status is not None
            raise ValueError(
                f"the hub ({self._api.endpoint}) could not be {what}{f' (status {status})' if known else ''}: "
                f"{reason[:200]}. {kept}To go on, {cure}"
            ) from None
