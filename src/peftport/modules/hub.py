"""Modules and hosts put on the hub, by huggingface_hub's own client."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from peftport.errors import BadInput, RunFailed
from peftport.lookup import first_line


def push(folder: Path, name: str, *, private: bool = False) -> str:
    """Upload a folder, card included, as a repository of models.

    Where it goes and who asks is what huggingface_hub says: `HF_ENDPOINT`, `HF_TOKEN`, or the
    login of `hf auth login`.

    Args:
        name: of the repository, `user/name`; made if there is none.
        private: whether a repository that is made is private.

    Returns:
        Address of the commit.

    Raises:
        BadInput: the name is none, or there is no login.
        RunFailed: the hub cannot be reached, or refused.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalTokenNotFoundError,
        OfflineModeIsEnabled,
    )

    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    try:
        api.create_repo(name, private=private, exist_ok=True)
        done = api.upload_folder(
            repo_id=name, folder_path=folder, commit_message="Upload with peftport"
        )
    except HFValidationError as error:
        raise BadInput(f"--push-to-hub {name!r}: {error}") from error
    except LocalTokenNotFoundError as error:
        raise BadInput(f"--push-to-hub {name}: there is no login; run `hf auth login`.") from error
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError) as error:
        raise RunFailed(
            f"--push-to-hub {name}: {_reason(error)}. The folder is whole: {folder}"
        ) from error
    return str(done.commit_url)


def _reason(error: Exception) -> str:
    from huggingface_hub.errors import OfflineModeIsEnabled

    if isinstance(error, OfflineModeIsEnabled):
        return "the hub is not asked for anything while HF_HUB_OFFLINE is set"
    return first_line(error)


def push_saved(save: Callable[[Path], None], name: str, *, private: bool = False) -> str:
    """Upload what `save` writes into a folder that it is given; see `push`."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "module"
        save(folder)
        return push(folder, name, private=private)
