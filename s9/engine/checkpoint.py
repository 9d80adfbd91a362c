"""Checkpoints: everything that a run needs to continue as if it had never stopped.

checkpoint.pt            the newest
checkpoint-previous.pt   the one before it, in case the newest is damaged

The first line of each holds the SHA-256 of the rest, which torch.load reads with weights_only=True: that runs
no code. A new one is written under another name and then renamed: one of the two is good at any moment.
"""

import hashlib
import io
from pathlib import Path
from typing import Any

import torch

from s9.errors import UserError
from s9.files import replace
from s9.records import CHECKPOINT
from s9.settings import Settings, from_record

PREVIOUS = "checkpoint-previous.pt"


def save(folder: Path, state: dict[str, Any]) -> None:
    """Makes `state`, tensors and plain values, the newest checkpoint; on OSError, all are as before."""
    content = io.BytesIO()
    torch.save(state, content)
    payload = content.getvalue()
    newest = folder / CHECKPOINT
    fresh = folder / f".{CHECKPOINT}-new"
    replace(fresh, _header(payload) + b"\n" + payload)
    if newest.exists():
        newest.replace(folder / PREVIOUS)
    fresh.replace(newest)


def load(folder: Path, settings: Settings) -> dict[str, Any]:
    """The newest good checkpoint of a run of these settings. Raises UserError if there is none.

    If the newest is damaged or foreign, prints a line that names it and uses the previous one.
    """
    problems = []
    for path in filter(Path.exists, (folder / CHECKPOINT, folder / PREVIOUS)):
        try:
            state = _read(path, settings)
        except (OSError, ValueError) as error:
            problems.append(f"{path} cannot be resumed from ({error})")
            continue
        if problems:
            print(f"{problems[0]}: using the previous one", flush=True)
        if path.name == PREVIOUS:  # The next save must not replace it with a bad one.
            path.replace(folder / CHECKPOINT)
        return state
    problem = "; ".join(problems) or f"{folder} holds no checkpoint"
    raise UserError(f"{problem}: start a new run in another folder")


def _read(path: Path, settings: Settings) -> dict[str, Any]:
    """A checkpoint's state. Raises OSError, or ValueError with the reason, if it cannot be used."""
    head, _, payload = path.read_bytes().partition(b"\n")
    if head != _header(payload):
        raise ValueError("it is damaged or no checkpoint: its checksum differs")
    try:
        state = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
        recorded = from_record(state["settings"])
    except UserError:  # It names the setting.
        raise
    except Exception as error:  # Made by hand, with a correct checksum.
        raise ValueError("it holds more than tensors and plain values, or no settings") from error
    if recorded != settings:
        raise ValueError("it is of a run with other settings")
    return state


def _header(payload: bytes) -> bytes:
    return b"S9 checkpoint, SHA-256 " + hashlib.sha256(payload).hexdigest().encode()


def random_state() -> dict[str, Any]:
    """The state of PyTorch's global random generators, as plain values."""
    state: dict[str, Any] = {"torch": torch.get_rng_state().tolist()}
    if torch.cuda.is_available():
        state["cuda"] = [own.tolist() for own in torch.cuda.get_rng_state_all()]
    if torch.backends.mps.is_available():
        state["mps"] = torch.mps.get_rng_state().tolist()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Restores what random_state() returned; generators of absent hardware are left out."""
    torch.set_rng_state(torch.tensor(state["torch"], dtype=torch.uint8))
    if len(cuda := state.get("cuda", [])) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([torch.tensor(own, dtype=torch.uint8) for own in cuda])
    if "mps" in state and torch.backends.mps.is_available():
        torch.mps.set_rng_state(torch.tensor(state["mps"], dtype=torch.uint8))
