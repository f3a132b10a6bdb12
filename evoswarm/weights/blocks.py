"""What the weights of a particle consist of: tensors, made of blocks in which the experts are mixed linearly.

Two spaces give a row of coefficients c its meaning (s_j is the scale of expert j, alpha / r):

    factors     A = sum_j c_j A_j,  B = sum_j c_j B_j       one block per tensor; only for experts of one form
    product     B A = sum_j c_j s_j B_j A_j                 A = [A_1; A_2; ...],  B = [c_1 s_1 B_1, c_2 s_2 B_2, ...]

In product space A is the same for every row, and B is linear in the coefficients. A missing module of an expert is a
missing block. In both spaces a whole tensor T (`modules_to_save`, embeddings, norms, biases, and every tensor of a full
checkpoint) is mixed as its difference from the base: base + sum_j c_j (T_j - base).
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from evoswarm.rows import BasisVector, ExpertPart, LayersVector, NoiseVector, Row
from evoswarm.weights.expert import Expert
from evoswarm.weights.merge import adapter_key, full_tensors, lora_modules, scaling
from evoswarm.weights.tensorfile import TensorSpec


@dataclass(frozen=True)
class Block:
    """Scalars that are mixed linearly.

    Attributes:
        spec: a name that is unique in the pool (it names noise and saved vectors), shape and type.
        sources: the name of the tensor in every expert that has it.
        layer: the layer it belongs to.
        scales: factors of the experts' values; 1 for those that are not listed.
        noise: factor of noise.
        base: the tensor of the base model that the experts' values are differences from; None: zero.
        owner: the expert without which the block is left out; None: it is always there.
        fixed: a copy of its only source, whatever the coefficients are.
        masked: sparsified experts drop scalars here. Not in A of a LoRA, and not in coefficients of models.
    """

    spec: TensorSpec
    sources: Mapping[str, str]
    layer: int
    scales: Mapping[str, float] = field(default_factory=dict)
    noise: float = 1.0
    base: str | None = None
    owner: str | None = None
    fixed: bool = False
    masked: bool = True

    def factor(self, vector: BasisVector) -> float:
        """What a basis vector's coefficient is multiplied by here; 0 where the vector is zero."""
        if isinstance(vector, ExpertPart):
            return self.scales.get(vector.name, 1.0) if vector.name in self.sources and self._reached(vector) else 0.0
        return self.noise if isinstance(vector, NoiseVector) else 1.0

    def is_in(self, row: Row) -> bool:
        """Whether a row's weights have this block."""
        if self.owner is None:
            return True
        return any(self._in(vector) for vector, value in row.terms if value)

    def _in(self, vector: BasisVector) -> bool:
        if isinstance(vector, ExpertPart):
            return vector.name == self.owner and self._reached(vector)
        return True  # noise changes B of every expert

    def _reached(self, vector: ExpertPart) -> bool:
        return not isinstance(vector, LayersVector) or vector.first <= self.layer <= vector.last


@dataclass(frozen=True)
class Part:
    """One tensor of a particle: blocks side by side along an axis."""

    name: str
    blocks: tuple[Block, ...]
    axis: int = 0

    @property
    def full(self) -> TensorSpec:
        """The tensor with all blocks."""
        return self.spec(self.blocks)

    def kept(self, row: Row) -> tuple[Block, ...]:
        """The blocks of a row: at least one, because a LoRA of rank 0 cannot be saved."""
        return tuple(block for block in self.blocks if block.is_in(row)) or self.blocks[:1]

    def spec(self, blocks: Sequence[Block]) -> TensorSpec:
        """The tensor with some of the blocks."""
        shape = list(blocks[0].spec.shape)
        if len(self.blocks) > 1:
            shape[self.axis] = sum(block.spec.shape[self.axis] for block in blocks)
        return TensorSpec(self.name, tuple(shape), blocks[0].spec.dtype)


def in_factors(experts: Sequence[Expert]) -> list[Part]:
    """The tensors of the first expert, which all experts have: each is one block."""
    first = experts[0]
    whole = whole_tensors(first)
    scales = _scales(experts)
    of_a = {a for a, _ in pair_names(first).values()} if first.kind == "adapter" else set()
    unmasked = of_a | (first.specs.keys() if first.kind == "model" else set())
    parts = []
    for name in sorted(first.specs):
        block = _block(name, experts, _sharing(name, experts), scales=scales.get(name), base=whole.get(name))
        parts.append(Part(name, (replace(block, masked=name not in unmasked),)))
    return parts


def in_product(experts: Sequence[Expert]) -> list[Part]:
    """A and B of every module that an expert adapts, with one block per expert, and the experts' whole tensors."""
    pairs = {expert.name: pair_names(expert) for expert in experts}
    modules = {module: None for names in pairs.values() for module in names}
    parts = {part.name: part for part in _whole_parts(experts, modules)}
    for module in modules:
        having = [expert for expert in experts if module in pairs[expert.name]]
        for axis in (0, 1):
            names = [pairs[expert.name][module][axis] for expert in having]
            blocks = [
                _own_block(expert, name, module, fixed=axis == 0, share=len(having))
                for expert, name in zip(having, names, strict=True)
            ]
            scales = [scale for block in blocks for scale in block.scales.values() if not block.fixed]
            dtype = widest([block.spec.dtype for block in blocks], scales=scales)
            same = tuple(replace(block, spec=replace(block.spec, dtype=dtype)) for block in blocks)
            parts[names[0]] = Part(names[0], same, axis)
    return [part for _, part in sorted(parts.items())]


def _whole_parts(experts: Sequence[Expert], adapted: Collection[str]) -> Iterator[Part]:
    """One part per parameter that an expert holds whole. Its name in a file depends on which modules are adapted."""
    sources: dict[str, dict[str, str]] = {}
    for expert in experts:
        for key, parameter in whole_tensors(expert).items():
            sources.setdefault(parameter, {})[expert.name] = key
    for parameter, keys in sources.items():
        name = adapter_key(parameter, adapted)
        yield Part(name, (_block(name, experts, keys, base=parameter),))


def _sharing(name: str, experts: Sequence[Expert]) -> dict[str, str]:
    """The experts that have a tensor, by name, with the tensor's name."""
    return {expert.name: name for expert in experts if name in expert.specs}


def whole_tensors(expert: Expert) -> dict[str, str]:
    """Tensors that hold a whole parameter of the base model, and the parameter's name."""
    if expert.kind != "adapter":
        return {name: name for name in expert.specs} if expert.kind == "checkpoint" else {}
    return {key: base for base, key in full_tensors({name: name for name in expert.specs}).items()}


def layer_of(tensor: str) -> int:
    """The layer of a tensor: the first number in its name, or 0."""
    match = re.search(r"(?:^|\.)(\d+)\.", tensor)
    return int(match[1]) if match else 0


def widest(dtypes: Sequence[str], *, scales: Iterable[float] = ()) -> str:
    """The smallest data type that holds all values of these exactly; fp32 if scales other than powers of two do not."""
    kinds = set(dtypes) | {"F32" for scale in scales if math.frexp(scale)[0] != 0.5}
    if kinds == {"F16", "BF16"}:
        return "F32"
    order = ("BF16", "F16", "F32", "F64")
    return max(kinds, key=order.index) if kinds <= set(order) else dtypes[0]


def _block(
    name: str,
    experts: Sequence[Expert],
    keys: Mapping[str, str],
    *,
    base: str | None,
    scales: Mapping[str, float] | None = None,
) -> Block:
    """A tensor that experts share, with its name in each of them."""
    specs = [replace(expert.specs[keys[expert.name]], name=name) for expert in experts if expert.name in keys]
    if not specs[0].is_float:
        return Block(specs[0], dict([next(iter(keys.items()))]), layer_of(name), fixed=True)
    scales = scales or {}
    spec = replace(specs[0], dtype=widest([spec.dtype for spec in specs], scales=scales.values()))
    return Block(spec, keys, layer_of(name), scales=scales, base=base)


def _own_block(expert: Expert, tensor: str, module: str, *, fixed: bool, share: int) -> Block:
    """One expert's A or B of a module that `share` experts adapt.

    Noise: the sum of `share` independent products has the norm that noise on one B has in the space of factors.
    """
    spec, scale = expert.specs[tensor], scaling(expert.config, module)
    return Block(
        replace(spec, name=f"{tensor} of {expert.name}"),
        {expert.name: tensor},
        layer_of(tensor),
        scales={expert.name: scale},
        noise=scale / math.sqrt(share),
        owner=expert.name,
        fixed=fixed,
    )


def pair_names(expert: Expert) -> dict[str, tuple[str, str]]:
    """Module to the names of its A and B."""
    return {module: (pair.a, pair.b) for module, pair in lora_modules({n: n for n in expert.specs}).items()}


def _scales(experts: Sequence[Expert]) -> dict[str, dict[str, float]]:
    """By name of a B: how its experts' scales differ from the first expert's, whose adapter_config.json is used."""
    first = experts[0]
    if first.kind != "adapter":
        return {}
    found = {}
    for module, (_, b) in pair_names(first).items():
        scales = {expert.name: scaling(expert.config, module) for expert in experts}
        if len(set(scales.values())) > 1:
            found[b] = {name: scale / scales[first.name] for name, scale in scales.items()}
    return found
