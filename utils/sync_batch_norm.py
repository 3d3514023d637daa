"""Batch statistics over the batches of all processes, on CPUs; PyTorch's own needs GPUs, and is faster there."""

import torch
from torch import nn

from utils.distributed import sum_over_processes


class _Sum(torch.autograd.Function):
    """The sum of every process's tensor. Each process's loss depends on every part, so gradients are summed too."""

    @staticmethod
    def forward(_, part: torch.Tensor) -> torch.Tensor:
        return sum_over_processes(part)

    @staticmethod
    def backward(_, gradient: torch.Tensor) -> torch.Tensor:
        return sum_over_processes(gradient)


class SyncBatchNorm(nn.BatchNorm2d):
    """`nn.BatchNorm2d` that in training normalises by mean and variance over all processes (arXiv:1711.07240).

    Gradients flow through these to every process's input. Parameters and buffers have the same names.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (B, C, H, W), B may differ between processes."""
        if not self.training:
            return super().forward(x)
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        pixels = wide.new_full((1,), x.numel() / x.shape[1])
        total, count = _Sum.apply(torch.cat([wide.sum(dim=(0, 2, 3)), pixels])).split([x.shape[1], 1])
        mean = total / count  # (C,)
        # The squares about the mean need a second exchange; without it large means would cancel the variance's digits.
        centred = wide - mean[:, None, None]
        variance = _Sum.apply(centred.square().sum(dim=(0, 2, 3))) / count
        self._track(mean.detach(), (variance * count / (count - 1)).detach())
        scale = (variance + self.eps).rsqrt() * self.weight
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)

    @torch.no_grad()
    def _track(self, mean: torch.Tensor, variance: torch.Tensor) -> None:
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        self.running_var.lerp_(variance.to(self.running_var.dtype), self.momentum)


def synchronise(network: nn.Module) -> nn.Module:
    """The network with every batch norm in it synchronised, its parameters, buffers and their names the same."""
    if next(network.parameters()).is_cuda:
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, _synchronised(child))
    return network


def _synchronised(norm: nn.BatchNorm2d) -> SyncBatchNorm:
    synchronised = SyncBatchNorm(norm.num_features, norm.eps, norm.momentum)
    synchronised.weight, synchronised.bias = norm.weight, norm.bias
    for name, buffer in norm.named_buffers():
        setattr(synchronised, name, buffer)
    return synchronised.train(norm.training)
