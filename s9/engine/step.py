"""The forward and backward pass of a training step as a CUDA graph, verified against the plain one.

A CUDA graph launches the many small operations of a step together, where Python is slower than the GPU
(https://pytorch.org/docs/stable/notes/cuda.html#cuda-graphs).
"""

from collections.abc import Callable, Sequence
from contextlib import suppress

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from s9.engine import checkpoint
from s9.errors import one_line

Compute = Callable[[Tensor, Tensor], tuple[Tensor, ...]]
"""Computes the gradients of the parameters from images and labels; returns tensors, the loss first."""
WARM_UP = 3
"""Plain passes before capturing, as in torch.cuda.make_graphed_callables."""
TOLERANCES = {"float32": 0.01, "float16": 0.01, "bfloat16": 0.05}
"""Largest relative difference from the plain pass. In float32, convolutions on a GPU round to TF32."""


class GraphedStep:
    """Calls compute(images, labels), or replays the CUDA graph that was captured from it for this image size.

    Each new graph is compared with the plain pass on its first batch. If capturing fails or the results
    differ, a line says so, and all later batches are computed plainly, as the last, smaller batch of an epoch
    always is. Before each call the gradients of `network`, which compute sets, must be None.
    """

    def __init__(self, network: nn.Module, batch_size: int, precision: str) -> None:
        self.parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self.buffers = list(network.buffers())
        self.batch_size, self.tolerance = batch_size, TOLERANCES[precision]
        self.replay: Compute | None = None
        self.shape: torch.Size | None = None
        self.failed = False

    def __call__(self, compute: Compute, images: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        """Sets the gradients; returns what compute(images, labels) does. The next call may overwrite both."""
        if self.failed or len(images) != self.batch_size:
            return compute(images, labels)
        if images.shape != self.shape:
            self.replay = self.shape = None  # Frees the memory of the previous graph.
            return self._first(compute, images, labels)
        return self.replay(images, labels)

    def _first(self, compute: Compute, images: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        buffers, random = [buffer.clone() for buffer in self.buffers], checkpoint.random_state()
        outputs = compute(images, labels)
        expected = self._results(outputs)
        if not torch.stack([value.norm() for group in expected for value in group]).isfinite().all():
            return outputs  # float16 overflows at first: the next batch is captured.
        try:
            self._reset(buffers, random)
            replay = capture_cuda_graph(compute, images, labels, self.parameters)
            self._reset(buffers, random)
            outputs = replay(images, labels)
            found = self._results(outputs)
            difference = max(largest_difference(*pair) for pair in zip(expected, found, strict=True))
            problem = "" if difference <= self.tolerance else f"its results differ by {difference:.2g}"
        except Exception as error:  # Whatever went wrong, training can go on without the graph.
            problem = one_line(error)
        if not problem:
            self.replay, self.shape = replay, images.shape
            return outputs
        self.failed = True
        tqdm.write(f"training goes on without a CUDA graph: {problem}")
        self._reset(buffers, random)
        return compute(images, labels)

    def _results(self, outputs: Sequence[Tensor]) -> tuple[list[Tensor], ...]:
        """Copies of what a pass computes: the loss, the statistics of BatchNorm, the gradients."""
        statistics = [buffer for buffer in self.buffers if buffer.is_floating_point()]
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        return tuple([tensor.clone() for tensor in group] for group in (outputs[:1], statistics, gradients))

    def _reset(self, buffers: Sequence[Tensor], random: dict) -> None:
        for parameter in self.parameters:
            parameter.grad = None
        for buffer, value in zip(self.buffers, buffers, strict=True):
            buffer.copy_(value)
        checkpoint.set_random_state(random)


def largest_difference(expected: Sequence[Tensor], found: Sequence[Tensor]) -> float:
    """The largest relative difference within pairs of tensors; infinite where one is missing or not finite.

    Relative to the norm of the expected tensor or, where that is more, to a hundredth of the largest norm: a
    gradient near zero may be no more than rounding.
    """
    if [tensor.shape for tensor in expected] != [tensor.shape for tensor in found]:
        return float("inf")
    if not expected:
        return 0.0
    norms = torch.stack([tensor.norm() for tensor in expected])
    errors = torch.stack([(a - b).norm() for a, b in zip(expected, found, strict=True)])
    differences = errors / torch.maximum(norms, 0.01 * norms.max()).clamp(min=1e-12)
    return differences.nan_to_num(nan=float("inf")).max().item()


def capture_cuda_graph(
    compute: Compute, images: Tensor, labels: Tensor, parameters: Sequence[Tensor]
) -> Compute:
    """Captures compute for this shape, or raises PyTorch's errors; changes buffers and random states."""
    # Zeros, so that a graph that does not read each batch anew differs from the plain pass on the first one.
    static_images, static_labels = torch.zeros_like(images), torch.zeros_like(labels)
    current, stream = torch.cuda.current_stream(), torch.cuda.Stream()
    generator = torch.cuda.default_generators[torch.cuda.current_device()]
    generator_before = generator.clone_state()
    graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
    stream.wait_stream(current)
    try:
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                compute(static_images, static_labels)
                for parameter in parameters:
                    parameter.grad = None
            with torch.cuda.graph(graph, pool=pool, stream=stream):
                outputs = compute(static_images, static_labels)
    except Exception:
        # A failed capture can leave PyTorch's generator and allocator in capturing mode.
        generator.graphsafe_set_state(generator_before)
        with suppress(Exception):
            torch._C._cuda_endAllocateToPool(torch.cuda.current_device(), pool)
        raise
    current.wait_stream(stream)
    gradients = [parameter.grad for parameter in parameters]

    def replay(images: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        static_images.copy_(images)
        static_labels.copy_(labels)
        graph.replay()
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        return outputs

    return replay
