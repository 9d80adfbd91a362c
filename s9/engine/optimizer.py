"""The optimizers, SGD and Muon, and the one-cycle schedule of their learning rates."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.lr_scheduler import OneCycleLR

from s9.settings import Settings

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of Muon's quintic polynomial: five steps bring singular values in 0..1 to about 0.7..1.2."""


def make_optimizer(network: nn.Module, settings: Settings, steps: int) -> tuple[SGD, OneCycleLR]:
    """SGD with Nesterov momentum on a one-cycle schedule (Smith & Topin, 2018, https://arxiv.org/abs/1708.07120).

    The rates rise linearly for settings.rise of the steps, then fall linearly to almost zero.
    Biases and norms have no weight decay, which would only shrink their scale (He et al., 2018,
    https://arxiv.org/abs/1812.01187). The rate of biases is settings.bias_rate times that of kernels: in
    short runs biases lag behind (Page, 2019, https://github.com/davidcpage/cifar10-fast).
    If settings.muon_rate is above 0, Muon trains the dense kernels, at that rate.
    """
    by_muon = _dense_kernels(network) if settings.muon_rate else []
    dense = set(map(id, by_muon))
    kernels, biases, scales = [], [], []
    for name, parameter in network.named_parameters():
        if id(parameter) not in dense:
            group = kernels if parameter.ndim > 1 else biases if name.endswith("bias") else scales
            group.append(parameter)
    rate = settings.learning_rate
    groups = [
        {"params": kernels, "lr": rate, "weight_decay": settings.weight_decay},
        {"params": scales, "lr": rate, "weight_decay": 0.0},
        {"params": biases, "lr": rate * settings.bias_rate, "weight_decay": 0.0},
    ]
    if by_muon:
        groups.append({"params": by_muon, "lr": settings.muon_rate, "weight_decay": 0.0, "use_muon": True})
        # Not fused: with float16, GradScaler then unscales the gradients before Muon reads them.
        optimizer = Muon(groups, momentum=0.9, nesterov=True, foreach=True)
    else:
        optimizer = SGD(groups, momentum=0.9, nesterov=True, fused=True)
    rates = [group["lr"] for group in groups]
    total, rise = max(steps, 2), float(settings.rise)
    if rise * total == 1:  # OneCycleLR would divide by the 0 steps that its rates then rise for.
        rise *= 1 - 1e-9
    shape = {"pct_start": rise, "anneal_strategy": "linear", "final_div_factor": 1e4}
    return optimizer, OneCycleLR(optimizer, rates, total_steps=total, cycle_momentum=False, **shape)


def _dense_kernels(network: nn.Module) -> list[Tensor]:
    """Kernels of dense convolutions without bias, outside of O: a norm follows each."""
    inside = [layer for name, layer in network.named_modules() if not name.startswith("O.")]
    convolutions = [layer for layer in inside if isinstance(layer, nn.Conv2d)]
    return [layer.weight for layer in convolutions if layer.groups == 1 and layer.bias is None]


class Muon(SGD):
    """SGD, except for parameter groups with use_muon=True, whose kernels Muon updates.

    Muon (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon) makes the momentum of a kernel, as a
    matrix (out_channels, the rest), orthogonal before the update, so that the many directions in which the
    gradient is small count as much as the few in which it is large. As in
    https://github.com/KellerJordan/cifar10-airbench, a kernel's norm is kept at sqrt(out_channels); an update
    has that norm times the learning rate. torch.optim.Muon (PyTorch 2.9) accepts 2-D parameters only.

    On a CPU the kernels of one shape are a batch, which computes the same bits as one kernel at a time;
    elsewhere all are one, padded with zeros, which a GPU computes faster than a CPU launches several.
    """

    workspace: tuple[list[Tensor], list[Tensor]] | None = None
    """Batches of matrices (n, rows, columns), and each kernel's part of them in the kernel's shape."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One update of all parameters that have a gradient. Sets the gradients of Muon's kernels to None."""
        for group in self.param_groups:
            kernels = [kernel for kernel in group["params"] if kernel.grad is not None]
            if group.get("use_muon") and kernels:
                self._update(kernels, group["lr"], group["momentum"])
                for kernel in kernels:
                    kernel.grad = None  # SGD skips parameters without a gradient.
        super().step(closure)

    def _update(self, kernels: list[Tensor], rate: float, momentum: float) -> None:
        if self.workspace is None:
            make = batches_by_shape if kernels[0].device.type == "cpu" else padded_batch
            self.workspace = make(kernels)
        for kernel in kernels:
            if not self.state[kernel]:
                self.state[kernel]["momentum_buffer"] = torch.zeros_like(kernel)
        averages = [self.state[kernel]["momentum_buffer"] for kernel in kernels]
        gradients = [kernel.grad for kernel in kernels]
        torch._foreach_mul_(averages, momentum)
        torch._foreach_add_(averages, gradients)
        directions = torch._foreach_add(gradients, averages, alpha=momentum)  # Nesterov's

        batches, updates = self.workspace
        torch._foreach_copy_(updates, directions)
        for batch in batches:
            batch.copy_(newton_schulz(batch))

        lengths = [len(kernel) ** 0.5 for kernel in kernels]
        _set_norms(kernels, lengths)
        _set_norms(updates, [rate * length for length in lengths])
        torch._foreach_sub_(kernels, updates)


def batches_by_shape(kernels: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """A batch (n, rows, columns) for each shape that the kernels have as matrices, and each kernel's view."""
    shapes = [(len(kernel), kernel[0].numel()) for kernel in kernels]
    batches = {shape: kernels[0].new_empty(shapes.count(shape), *shape) for shape in dict.fromkeys(shapes)}
    free = {shape: iter(batch) for shape, batch in batches.items()}
    views = [next(free[shape]).view(kernel.shape) for shape, kernel in zip(shapes, kernels, strict=True)]
    return list(batches.values()), views


def padded_batch(kernels: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """One float32 batch of wide matrices, zero outside of the kernels' views into it, and those views.

    Tall matrices lie in it transposed: newton_schulz() keeps zeros, and commutes with transposing.
    """
    shapes = [(len(kernel), kernel[0].numel()) for kernel in kernels]
    batch = kernels[0].new_zeros(len(kernels), max(map(min, shapes)), max(map(max, shapes)))
    views = []
    for matrix, (rows, columns), kernel in zip(batch, shapes, kernels, strict=True):
        part = matrix[:rows, :columns] if rows <= columns else matrix[:columns, :rows].T
        views.append(part.view(kernel.shape))
    return [batch], views


def _set_norms(tensors: list[Tensor], lengths: list[float]) -> None:
    """Scales each tensor, in place, to the norm that `lengths` gives; zeros stay zero."""
    scales = torch._foreach_norm(tensors)
    torch._foreach_clamp_min_(scales, 1e-12)
    torch._foreach_reciprocal_(scales)
    torch._foreach_mul_(scales, lengths)
    torch._foreach_mul_(tensors, scales)


def newton_schulz(matrices: Tensor) -> Tensor:
    """Float32 matrices (n, rows, columns) with their singular values moved to 0.7..1.2; zeros stay zero."""
    if matrices.shape[1] > matrices.shape[2]:
        return newton_schulz(matrices.mT).mT
    a, b, c = NEWTON_SCHULZ
    result = matrices / torch.linalg.vector_norm(matrices, dim=(1, 2), keepdim=True).clamp(min=1e-12)
    for _ in range(5):
        gram = torch.bmm(result, result.mT)
        result = a * result + torch.bmm(b * gram + torch.bmm(c * gram, gram), result)
    return result
