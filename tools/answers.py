"""The assignment's five questions and their answers, as Markdown."""

import inspect
from pathlib import Path

import dataset
import utils
from model import count_parameters
from s9 import files, records
from s9.analysis.summary import summary
from s9.errors import UserError
from s9.records import Run
from tools import evidence, stamp
from tools.audit import PARAMETER_LIMIT
from tools.stamp import REPO


def too_large(model: str) -> str:
    """Why a network cannot be handed in, or "" if it can."""
    count = count_parameters(utils.new_network(model))
    if count < PARAMETER_LIMIT:
        return ""
    return f"{model} has {count:,} parameters, the assignment allows fewer than {PARAMETER_LIMIT:,}"


def qna(run: Run) -> str:
    """The assignment's five questions and their answers, as Markdown, from the live sources and the run.

    Raises UserError if the network is too large to hand in, if the run's log and history disagree, or if its
    weights are missing or another's.
    """
    settings = run.settings
    if reason := too_large(settings.model):
        raise UserError(f"{run.folder}: {reason}; hand in a run of another network")
    if "transform" in run.facts:
        raise UserError(f"{run.folder} was trained with another transform: hand in a run of train_transform")
    if lines := evidence.disagreements(run):
        raise UserError(f"{lines[0]}: restore the files as the run wrote them")
    network = utils.network_of(run)
    records.load_weights(run.folder, network)
    other = "" if settings.dataset == "cifar10" else f" (of {settings.dataset.upper()}, NOT CIFAR-10)"
    answers = {
        f"The model's code, model.py; the network is {type(network).__name__}": fenced(
            (REPO / "model.py").read_text(encoding="utf-8"), "python"
        ),
        "The output of torchsummary": fenced(summary(network)),
        "The code of the three Albumentations transforms; probability is "
        f"{settings.augmentation:g}, shift {settings.shift:g}": fenced(
            inspect.getsource(dataset.train_transform), "python"
        ),
        f"The training log, with a test after each epoch{other}": fenced(run.log),
        "The link to README.md": readme_link(),
    }
    return "\n\n".join(
        f"## {number}. {question}\n\n{answer}" for number, (question, answer) in enumerate(answers.items(), 1)
    )


def write_qna(run: Run) -> str:
    """Writes the answers to QnA.md in the run's folder, and returns them. Raises UserError as qna does."""
    answers = qna(run)
    files.replace(run.folder / "QnA.md", (answers + "\n").encode())
    return answers


def fenced(text: str, language: str = "") -> str:
    """The text as a code block."""
    text = text.strip("\n")
    return f"```{language}\n{text}\n```"


def readme_link(folder: Path = REPO) -> str:
    """The web address of README.md on GitHub, by the git remote `origin`."""
    try:
        return f"https://github.com/{stamp.own_address(folder)}/blob/HEAD/README.md"
    except UserError:
        return "This copy has no web address yet: push it to GitHub, clone it from there, and ask again."
