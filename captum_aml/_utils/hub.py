"""Repositories of the Hugging Face hub: whether there is one, found out by a single request."""

from __future__ import annotations

import os

from captum_aml.exceptions import InvalidInputError

_FILE = "config.json"


def is_no_folder(source: str) -> bool:
    """Whether a name can only be that of a folder, and there is none."""
    if os.path.exists(source):
        return False
    return source.startswith((".", "~", os.sep)) or source.count("/") > 1 or not source


def check_source(source: str, expected: str, *, argument: str = "model") -> None:
    """Refuses a name that is neither something here nor a repository that can be had.

    Loaders try each file that they look for several times, for half a minute where there is no
    network. A repository that was loaded before needs none.

    Args:
        source: A path, or the id of a repository.
        expected: What it should be of, for the error.
        argument: The argument that names it. Default: "model".

    Raises:
        InvalidInputError: There is none.
    """
    if os.path.exists(source):
        return
    wanted = f"{argument}: expected {expected}"
    if is_no_folder(source):
        raise InvalidInputError(f"{wanted}, but there is no folder {source!r}")
    # Imported here: most models are in a folder, and importing the hub client takes a while.
    from huggingface_hub import (
        get_hf_file_metadata,
        hf_hub_url,
        is_offline_mode,
        try_to_load_from_cache,
    )
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
    )

    try:
        if isinstance(try_to_load_from_cache(source, _FILE), str):
            return
        if is_offline_mode():
            raise InvalidInputError(
                f"{wanted}, but there is no folder {source!r}, and no copy of a repository of the "
                "hub, which HF_HUB_OFFLINE says not to ask"
            )
        get_hf_file_metadata(hf_hub_url(source, _FILE))
    except InvalidInputError:
        raise
    except EntryNotFoundError:  # a repository, which may hold an adapter
        return
    except GatedRepoError as error:
        reason = "which its owners give to those who ask; log in with 'hf auth login'"
        raise InvalidInputError(
            f"{wanted}, but the hub does not give out {source!r}, {reason}"
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise InvalidInputError(
            f"{wanted}, but there is no folder {source!r}, and no such repository on the hub (or a "
            "private one)"
        ) from error
    except Exception as error:  # the hub's client raises what its own one does
        raise InvalidInputError(
            f"{wanted}, but there is no folder {source!r}, and the hub cannot be asked "
            f"({_line(error)}); without a network give a folder, or an id that was loaded before, "
            "with HF_HUB_OFFLINE=1"
        ) from error


def _line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
