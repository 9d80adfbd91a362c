"""What only Google Colab offers: Google Drive, the notebook as it stands, a download in the browser."""

import sys
from pathlib import Path

from s9.engine.progress import VIEW

DRIVE = "/content/drive"


def in_colab() -> bool:
    """Whether this code runs in Google Colab."""
    return "google.colab" in sys.modules


def mount_drive(folder: str) -> None:
    """Mounts Google Drive, which asks for permission, if `folder` lies in it; outside Colab, does nothing."""
    if in_colab() and folder.startswith(DRIVE):
        from google.colab import drive

        drive.mount(DRIVE)


def notebook() -> dict | None:
    """The notebook that runs this code, with its outputs, in nbformat's layout; None if Colab fails."""
    from google.colab import _message

    answer = _message.blocking_request("get_ipynb", request="", timeout_sec=60)
    notebook = (answer or {}).get("ipynb")
    if notebook:
        notebook["metadata"].pop("widgets", None)  # GitHub refuses to show a notebook with Colab's.
        for cell in notebook["cells"]:
            if outputs := cell.get("outputs"):
                cell["outputs"] = [output for output in outputs if VIEW not in output.get("data", {})]
    return notebook


def download(path: Path) -> None:
    """Has the browser download a file."""
    from google.colab import files

    files.download(str(path))
