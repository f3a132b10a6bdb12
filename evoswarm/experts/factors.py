"""The LoRA factors of adapted layers, from the methods themselves instead of a decomposition.

So what experts share stays shared: MiSS and VeRA share A up to its scale, WeGeFT shares the weights that generate B.
Shapes: A [r, in], B [out, r] with the scaling included. Each function is exact: W + B A is the adapted weight.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from peft.tuners.adalora.layer import AdaLoraLayer
from peft.tuners.adamss.layer import AdamssLayer
from peft.tuners.deft.layer import DeftLayer
from peft.tuners.delora.layer import DeloraLayer
from peft.tuners.gralora.layer import GraloraLayer
from peft.tuners.hra.layer import HRALayer
from peft.tuners.loha.layer import LoHaLayer
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.variants import BlockDiagonalLinear, KasaLinearVariant
from peft.tuners.miss.layer import MissLayer
from peft.tuners.psoft.layer import PsoftLayer
from peft.tuners.pvera.layer import PveraLayer
from peft.tuners.tinylora.layer import TinyLoraLayer
from peft.tuners.unilora.layer import UniLoraLayer
from peft.tuners.vblora.layer import VBLoRALayer
from peft.tuners.vera.layer import VeraLayer

from evoswarm.errors import UserError
from evoswarm.experts.wegeft import WeGeFTLinear

Pair = tuple[torch.Tensor, torch.Tensor]
"""A [r, in] and B [out, r]; B includes the scaling."""


def _lora(layer: Any, adapter: str) -> Pair:
    if adapter not in layer.lora_A:
        raise UserError("its embeddings cannot be converted; remove them from target_modules")
    a, b = (
        factor.weight_as_blockdiagonal_matrix() if isinstance(factor, BlockDiagonalLinear) else factor.weight
        for factor in (layer.lora_A[adapter], layer.lora_B[adapter])
    )
    if isinstance(layer.lora_variant.get(adapter), KasaLinearVariant):
        b = b * layer.lora_diag[adapter]
    return a, layer.scaling[adapter] * b


def _adalora(layer: Any, adapter: str) -> Pair:
    scale = layer.scaling[adapter] / (layer.ranknum[adapter] + 1e-5)
    return layer.lora_A[adapter] * layer.lora_E[adapter], scale * layer.lora_B[adapter]


def _vera(layer: Any, adapter: str) -> Pair:
    a = layer.vera_lambda_d[adapter][:, None] * layer.vera_A[adapter][:, : layer.in_features]
    return a, layer.vera_lambda_b[adapter][:, None] * layer.vera_B[adapter][: layer.out_features]


def _pvera(layer: Any, adapter: str) -> Pair:
    """The mean of the distribution, which peft also uses in evaluation."""
    mean = slice(layer.r[adapter])
    a = layer.pvera_lambda_d[adapter][mean, None] * layer.pvera_A[adapter][mean, : layer.in_features]
    return a, layer.pvera_lambda_b[adapter][:, None] * layer.pvera_B[adapter][: layer.out_features]


def _miss(layer: Any, adapter: str) -> Pair:
    block = layer.miss_block[adapter]  # [r, out]: input i uses row i modulo r
    if layer.miss_fn == "mini":
        block = block.repeat(1, layer.out_features // block.shape[1])
    rank = block.shape[0]
    a = torch.eye(rank, dtype=block.dtype, device=block.device).repeat(1, -(-layer.in_features // rank))
    return a[:, : layer.in_features], block.T


def _hra(layer: Any, adapter: str) -> Pair:
    """W H_1 ... H_r - W = -2 W Y U^T with H_i = I - 2 u_i u_i^T and y_i = H_1 ... H_(i-1) u_i."""
    u = layer.hra_u[adapter]  # [in, r]
    u = torch.linalg.qr(u).Q if layer.hra_apply_GS[adapter] else u / u.norm(dim=0)
    y = torch.zeros_like(u)
    for i in range(u.shape[1]):
        y[:, i] = u[:, i] - 2 * y[:, :i] @ (u[:, :i].T @ u[:, i])
    return u.T, -2 * layer.get_base_layer().weight.to(u.dtype) @ y


def _loha(layer: Any, adapter: str) -> Pair:
    """(W1a W1b) o (W2a W2b): all products of a column of W1a and one of W2a, and the same for the rows; rank r^2."""
    names = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
    w1_a, w1_b, w2_a, w2_b = (getattr(layer, name)[adapter] for name in names)
    a = (w1_b[:, None] * w2_b[None]).flatten(0, 1)
    return a, layer.scaling[adapter] * (w1_a[:, :, None] * w2_a[:, None]).flatten(1)


def _gralora(layer: Any, adapter: str) -> Pair:
    """k^2 blocks of rank r / k: input block n and output block m use rows m of A_n and rows n of B_m; rank k r."""
    a, b, k = layer.gralora_A[adapter], layer.gralora_B[adapter], layer.gralora_k[adapter]
    rank = a.shape[-1]
    a = torch.block_diag(*a.mT)  # rows (n, m, q)
    b = torch.block_diag(*b.mT)  # columns (m, n, q)
    b = b.reshape(len(b), k, k, rank // k).transpose(1, 2).reshape(len(b), k * rank)
    if layer.hybrid_r[adapter]:
        a = torch.cat([a, layer.gralora_A_general[adapter].weight])
        b = torch.cat([b, layer.gralora_B_general[adapter].weight], dim=1)
    return a, layer.scaling[adapter] * b


def _delora(layer: Any, adapter: str) -> Pair:
    a, b = layer.delora_A[adapter], layer.delora_B[adapter]
    norms = a.norm(dim=1).clamp(min=1e-4) * b.norm(dim=0).clamp(min=1e-4)
    return a * layer.delora_w_norm[adapter], b * (layer.delora_lambda[adapter] / layer.r[adapter] / norms)


def _deft(layer: Any, adapter: str) -> Pair:
    """Q (s R - P^T W), with the projection Q P^T."""
    q, _ = layer._project(layer.deft_P[adapter], adapter)
    a = -layer._merge_factor(adapter)
    return a if layer.deft_para[adapter] else a + layer.deft_scaling[adapter] * layer.deft_R[adapter], q


def _psoft(layer: Any, adapter: str) -> Pair:
    a, b = layer._psoft_A_cache[adapter], layer._psoft_B_cache[adapter]
    turned = layer.psoft_R[adapter].get_matrix()
    return a, layer.scaling[adapter] * b @ (turned - torch.eye(len(turned), device=turned.device))


def _tinylora(layer: Any, adapter: str) -> Pair:
    return layer.tinylora_A[adapter], layer.tinylora_B[adapter] @ layer._compute_R(adapter)


def _own(layer: Any, adapter: str) -> Pair:
    """The layer computes its A and B."""
    pair: Pair = layer._get_lora_matrices(adapter)
    return pair


def _adamss(layer: Any, adapter: str) -> Pair:
    """The rows of B are scattered to the subspaces of the output; rank: the sum over the subspaces."""
    if layer.get_base_layer().bias is not None:
        raise UserError("it also changes the bias of layers that have one, which is not part of a LoRA")
    down = torch.cat([a @ layer.adamss_newB[adapter] for a in layer.adamss_A[adapter]])
    stacked = torch.block_diag(*layer.adamss_B[adapter])
    up = stacked.new_zeros(layer.out_features, len(down))
    up[layer.scatter_index[adapter]] = stacked
    return down, up


LAYERS: dict[type[Any], Callable[[Any, str], Pair]] = {
    AdaLoraLayer: _adalora,  # before LoRA, which it is derived from
    LoraLayer: _lora,
    MissLayer: _miss,
    VeraLayer: _vera,
    PveraLayer: _pvera,
    WeGeFTLinear: WeGeFTLinear.lora_pair,
    HRALayer: _hra,
    LoHaLayer: _loha,
    GraloraLayer: _gralora,
    DeloraLayer: _delora,
    DeftLayer: _deft,
    PsoftLayer: _psoft,
    TinyLoraLayer: _tinylora,
    VBLoRALayer: _own,
    UniLoraLayer: _own,
    AdamssLayer: _adamss,
}
"""Layers that can be converted: from a layer and the adapter's name to A and B. To add one, add one line here."""
