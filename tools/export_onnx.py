"""Writes a trained network as an ONNX file, if ONNX Runtime gives the same logits as PyTorch.

python -m tools.export_onnx --run results/reference --out s9.onnx

Input: `images`, float32 (batch, 3, 32, 32), normalised with the mean and std in the metadata.
Output: `logits`, float32 (batch, classes), in the order of the classes in the metadata.
Needs three more packages, in requirements-dev.txt, which are imported where they are used.
"""

import json
from pathlib import Path

import torch
from torch import nn

from predict import Classifier, load_classifier
from s9 import files
from s9.errors import CommandParser, UserError, run_command

TOLERANCE = 1e-5
"""The largest relative difference of logits that passes; sums in another order differ by far less."""


def main(arguments: list[str] | None = None) -> None:
    """Runs the command. Exit codes: 1 if the logits differ, 2 for a user's mistake, with one line."""
    parser = CommandParser(
        prog="python -m tools.export_onnx",
        description="Write a run's network as an ONNX file, if ONNX Runtime gives the same logits.",
    )
    run, out = Path("results/reference"), Path("s9.onnx")
    parser.add_argument("--run", type=Path, default=run, metavar="RUN", help="run folder (%(default)s)")
    parser.add_argument("--out", type=Path, default=out, metavar="FILE", help="file to write (%(default)s)")
    options = parser.parse_args(arguments)
    try:
        trained = load_classifier(options.run, "cpu")
        files.ensure_writable(options.out, "s9.onnx")
        content = to_onnx(trained)
        difference = largest_difference(content, trained.network)
    except UserError as error:
        parser.error(str(error))
    except ImportError as error:
        parser.error(f"the export needs {error.name}: pip install onnx onnxruntime onnxscript")
    print(f"largest relative difference of logits: {difference:.1e}", flush=True)
    if not difference <= TOLERANCE:
        parser.exit(1, f"{parser.prog}: error: that is not at most {TOLERANCE:g}: nothing written\n")
    files.replace(options.out, content)
    print(f"{options.out}: {len(content):,} bytes")


def to_onnx(trained: Classifier) -> bytes:
    """The content of an ONNX file: the network for any batch size, and metadata.

    Metadata: `model` is a name; `classes`, `mean` and `std` are JSON lists.
    """
    import onnx

    program = torch.onnx.export(
        trained.network,
        (torch.zeros(2, 3, 32, 32),),
        dynamo=True,
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
        verbose=False,
    )
    model = program.model_proto
    graph = model.graph
    # PyTorch stores the file and line on this machine that each part came from.
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.ClearField("metadata_props")
    facts = {name: json.dumps(getattr(trained, name)) for name in ("classes", "mean", "std")}
    onnx.helper.set_model_props(model, {"model": trained.model, **facts})
    model.doc_string = "images: RGB in 0..1, minus mean, divided by std. logits: in the order of classes."
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


@torch.no_grad()
def largest_difference(content: bytes, network: nn.Module) -> float:
    """Largest difference between the logits of ONNX Runtime and of PyTorch, on the CPU; NaN if one is NaN.

    Relative to the largest logit. content: of an ONNX file. The inputs are 64 images of normally distributed
    values.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    images = torch.randn(64, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    (logits,) = session.run(["logits"], {"images": images.numpy()})
    expected = network.eval()(images)
    return ((torch.from_numpy(logits) - expected).abs().max() / expected.abs().max()).item()


if __name__ == "__main__":
    run_command(main)
