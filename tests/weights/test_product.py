"""Experts of any form are mixed as products: W + sum_j c_j s_j B_j A_j."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from tiny_models import load, save_adapter, save_llama
from weight_helpers import edit_config, same_bytes

from evoswarm.engine.install import Installer
from evoswarm.errors import UserError
from evoswarm.rows import BasisVector, ExpertVector, LayersVector, NoiseVector, Row, SavedVector, SparseVector
from evoswarm.weights.blocks import pair_names
from evoswarm.weights.config import PoolConfig
from evoswarm.weights.device import DeviceMaterializer
from evoswarm.weights.materialize import Materializer, Weights
from evoswarm.weights.merge import lora_modules, scaling
from evoswarm.weights.pool import Pool, open_pool
from evoswarm.weights.save import save_expert, save_vector

NOISE = NoiseVector(seed=3, generation=2, particle=1, gene_rate=0.3, sigma=0.1)
FORMS: dict[str, dict[str, object]] = {
    "a": {"r": 2, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]},
    "b": {"r": 5, "lora_alpha": 3, "target_modules": ["v_proj", "down_proj"], "use_rslora": True},
    "c": {"r": 4, "target_modules": ["q_proj"], "rank_pattern": {"0.*q_proj": 1}, "alpha_pattern": {"1.*q_proj": 20}},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Path:
    root = tmp_path_factory.mktemp("forms")
    for seed, (name, lora) in enumerate(FORMS.items()):
        save_adapter(tiny_llama, root / "pool" / name, seed=seed, **lora)
    return root / "pool"


@pytest.fixture
def pool(folder: Path, tiny_llama: Path) -> Pool:
    return open_pool(PoolConfig(experts=folder), model=str(tiny_llama))


def row(*terms: tuple[BasisVector | str, float]) -> Row:
    return Row(tuple((ExpertVector(v) if isinstance(v, str) else v, c) for v, c in terms))


def product(weights: Weights, module: str) -> np.ndarray:
    """B A of a particle, whose scale is 1."""
    pair = lora_modules(weights)[module]
    return pair.b.astype(np.float64) @ pair.a.astype(np.float64)


def of_expert(pool: Pool, name: str, module: str) -> np.ndarray | float:
    """s B A of an expert; 0 if it does not adapt the module."""
    (expert,) = (e for e in pool.experts if e.name == name)
    if module not in pair_names(expert):
        return 0.0
    a, b = (expert.tensor(key).astype(np.float64) for key in pair_names(expert)[module])
    return scaling(expert.config, module) * (b @ a)


ROWS = [
    row(("a", 0.6), ("b", -0.5), ("c", 0.25)),
    row(("b", 1.0)),
    row(("c", 0.3)),
    row(("a", 0.1), ("c", 0.7), (NOISE, 1.3)),
    row((NOISE, 1.0)),
    row(("a", 0.0), ("b", 0.5)),
    row((SparseVector("a", seed=3, copy=0, density=0.5), 0.6), ("c", 0.2)),
    row(),
]


def test_a_row_is_the_sum_of_the_experts_products(pool: Pool) -> None:
    assert pool.space is not None and str(pool.space) == (
        "mixing in product space (b and a differ in ranks, target modules or whole tensors)"
    )
    modules = sorted(lora_modules({s.name: s for s in pool.layout}))
    assert {m.rpartition(".")[2] for m in modules} == {"q_proj", "v_proj", "down_proj"}
    mix = {"a": 0.6, "b": -0.5, "c": 0.25}
    weights = Materializer(pool).one(ROWS[0])
    for module in modules:
        expected = sum(c * of_expert(pool, name, module) for name, c in mix.items())
        np.testing.assert_allclose(product(weights, module), expected, atol=1e-6)


def test_only_experts_with_a_coefficient_use_rank(pool: Pool) -> None:
    weights = Materializer(pool).one(row(("a", 0.0), ("b", 0.5)))
    ranks = {module.partition("layers.")[2]: len(pair.a) for module, pair in lora_modules(weights).items()}
    # q_proj, which b does not adapt, keeps the A of one expert, with a B of zeros
    assert ranks["0.self_attn.v_proj"] == ranks["0.mlp.down_proj"] == 5 and ranks["0.self_attn.q_proj"] == 2
    assert not product(weights, "model.layers.0.self_attn.q_proj").any()
    full = Materializer(pool).one(row(("a", 0.1), ("b", 0.5), ("c", 1.0)))
    assert len(lora_modules(full)["model.layers.1.self_attn.q_proj"].a) == 6


@pytest.mark.parametrize("lora", [{}, {"dtype": torch.bfloat16}])
def test_bits_depend_on_the_row_alone(folder: Path, tmp_path: Path, tiny_llama: Path, lora: dict[str, object]) -> None:
    for seed, (name, form) in enumerate(FORMS.items()):
        save_adapter(tiny_llama, tmp_path / "pool" / name, seed=seed, **form | (lora if name != "b" else {}))
    pool = open_pool(PoolConfig(experts=tmp_path / "pool"), model=str(tiny_llama))
    save_vector(Materializer(pool), row((NOISE, 0.5)), tmp_path / "saved.safetensors")
    rows = [*ROWS, row(("a", 0.3), (SavedVector("saved.safetensors"), 0.7), (NOISE, -1.0))]
    maker = Materializer(pool, root=tmp_path)
    together = maker.all(rows)
    for weights, alone in zip(together, rows, strict=True):
        assert same_bytes(weights, maker.one(alone))
    again = maker.all(rows[::-1], into=maker.all(rows))[::-1]
    threads = Materializer(pool, root=tmp_path, threads=3).all(rows)
    device = DeviceMaterializer(pool, root=tmp_path, device="cpu").all(rows)
    for other in (again, threads, device):
        assert all(same_bytes(a, b) for a, b in zip(together, other, strict=True))


def test_a_row_is_linear_in_its_coefficients_noise_included(pool: Pool) -> None:
    maker, basis = Materializer(pool), [ExpertVector("a"), ExpertVector("b"), NOISE]
    x, y, z = maker.all([Row.of(basis, c) for c in ([1.0, 0.5, 2.0], [-0.5, 1.0, -1.0], [0.25, 0.75, 0.5])])
    for module in lora_modules(z):
        expected = (product(x, module) + product(y, module)) / 2
        np.testing.assert_allclose(product(z, module), expected, atol=1e-6)


def test_noise_has_the_norm_that_noise_on_one_b_has(tmp_path: Path, tiny_llama: Path) -> None:
    for seed, name in enumerate("abcdefgh"):
        save_adapter(tiny_llama, tmp_path / name, seed=seed, r=8, lora_alpha=16)
    pool = open_pool(PoolConfig(experts=tmp_path), model=str(tiny_llama))
    noisy = Materializer(pool).one(row((NoiseVector(1, 2, 3, 1.0, 0.1), 1.0)))
    for module, pair in lora_modules(noisy).items():
        (expert, *_) = pool.experts
        a = expert.tensor(pair_names(expert)[module][0])
        one = 2.0 * 0.1 * len(pair.b) ** 0.5 * np.linalg.norm(a)  # s sigma sqrt(out) |A|
        assert np.linalg.norm(product(noisy, module)) == pytest.approx(one, rel=0.15)


def test_saved_noise_equals_the_noise(pool: Pool, tmp_path: Path) -> None:
    maker = Materializer(pool, root=tmp_path)
    noise = row((NOISE, 0.5), (NoiseVector(9, 1, 1, 0.5, 0.2), -1.5))
    save_vector(maker, noise, tmp_path / "one.safetensors")
    saved = (SavedVector("one.safetensors"), 1.0)
    assert same_bytes(maker.one(row(saved)), maker.one(noise))
    left, right = maker.one(row(("a", 0.5), saved)), maker.one(Row((*row(("a", 0.5)).terms, *noise.terms)))
    for name in left:
        np.testing.assert_allclose(left[name], right[name], atol=1e-6)


def test_spans_of_layers_mix_their_own_experts(pool: Pool) -> None:
    weights = Materializer(pool).one(row((LayersVector("a", 0, 0), 0.6), (LayersVector("b", 1, 1), 0.3)))
    for layer, name, c in ((0, "a", 0.6), (1, "b", 0.3)):
        module = f"model.layers.{layer}.self_attn.v_proj"
        np.testing.assert_allclose(product(weights, module), c * of_expert(pool, name, module), atol=1e-6)


@torch.no_grad()
def test_peft_loads_a_mix_of_forms_with_the_outputs_of_the_sum(pool: Pool, tmp_path: Path, tiny_llama: Path) -> None:
    maker, ids = Materializer(pool), torch.tensor([[1, 20, 30, 40, 50]])
    for mix in ROWS[:4]:
        save_expert(maker, mix, tmp_path / "best", base=str(tiny_llama))
        loaded = PeftModel.from_pretrained(load(tiny_llama), tmp_path / "best").eval()(ids).logits
        model = load(tiny_llama)
        Installer(model, pool.adapter).install(maker.one(mix))
        torch.testing.assert_close(loaded, model(ids).logits, rtol=1e-5, atol=1e-5)
    peft = PeftModel.from_pretrained(load(tiny_llama), pool.experts[1].path).eval()
    save_expert(maker, Row.one("b"), tmp_path / "best", base=str(tiny_llama))
    loaded = PeftModel.from_pretrained(load(tiny_llama), tmp_path / "best").eval()
    torch.testing.assert_close(loaded(ids).logits, peft(ids).logits, rtol=1e-5, atol=1e-5)


def test_experts_with_unrelated_a_are_mixed_as_products_and_others_as_factors(tmp_path: Path, tiny_llama: Path) -> None:
    def space(folder: str, **settings: object) -> str:
        found = open_pool(PoolConfig(experts=tmp_path / folder, **settings), model=str(tiny_llama)).space
        return str(found)

    for seed, name in enumerate("ab"):
        save_adapter(tiny_llama, tmp_path / "apart" / name, seed=seed)
        save_adapter(tiny_llama, tmp_path / "same" / name, seed=7)
    assert space("apart").startswith("mixing in product space (the experts' A are unrelated: smallest cosine ")
    assert space("same") == "mixing in factors space (the experts' A are related: smallest cosine 1.00)"
    assert space("apart", space="factors") == "mixing in factors space (pool.space)"
    assert space("same", prefer_product=True) == (
        "mixing in product space (pool.prefer_product, which the search sets unless the config does)"
    )
    assert space("same", prefer_product=True, space="factors") == "mixing in factors space (pool.space)"


def test_alphas_are_converted_in_the_space_of_factors(tmp_path: Path, tiny_llama: Path) -> None:
    for name in "ab":
        save_adapter(tiny_llama, tmp_path / name, seed=7)
    edit_config(tmp_path / "b", lora_alpha=24)  # a has 8
    pool = open_pool(PoolConfig(experts=tmp_path), model=str(tiny_llama))
    assert pool.space_name == "factors" and pool.adapter is not None and pool.adapter["lora_alpha"] == 8
    weights, (key, _) = Materializer(pool).one(Row.one("b")), (pool.layout[1].name, None)
    assert key.endswith("lora_B.weight")
    np.testing.assert_allclose(weights[key].ravel(), 3 * pool.flat("b", key), rtol=1e-6)


@torch.no_grad()
def test_layers_that_gpt2_stores_transposed_are_mixed_as_products(tmp_path: Path, tiny_gpt2: Path) -> None:
    forms = {"a": {"r": 2, "target_modules": ["c_attn"]}, "b": {"r": 3, "target_modules": ["c_attn", "c_proj"]}}
    for seed, (name, form) in enumerate(forms.items()):
        save_adapter(tiny_gpt2, tmp_path / "pool" / name, seed=seed, fan_in_fan_out=True, **form)
    _compare_with_peft(tmp_path, tiny_gpt2, row(("a", 0.7), ("b", -0.4)))


@torch.no_grad()
def test_a_bias_that_only_one_expert_trained_is_a_difference_from_the_base(tmp_path: Path) -> None:
    base = save_llama(tmp_path / "base", attention_bias=True)
    save_adapter(base, tmp_path / "pool" / "a", seed=0)
    save_adapter(base, tmp_path / "pool" / "b", seed=1, bias="lora_only")
    _compare_with_peft(tmp_path, base, row(("a", 0.7), ("b", 0.6)))


def _compare_with_peft(folder: Path, base: Path, mix: Row) -> None:
    """The saved mix, loaded by peft, has the outputs of the installed one, and of the exact sum of changes."""
    ids, pool = torch.tensor([[1, 20, 30, 40, 50]]), open_pool(PoolConfig(experts=folder / "pool"), model=str(base))
    assert pool.in_product
    save_expert(Materializer(pool), mix, folder / "best", base=str(base))
    loaded = PeftModel.from_pretrained(load(base), folder / "best").eval()
    installed, summed = load(base), load(base)
    Installer(installed, pool.adapter).install(Materializer(pool).one(mix))
    start = {name: tensor.clone() for name, tensor in summed.state_dict().items()}
    for name, c in mix.experts.items():
        merged = PeftModel.from_pretrained(load(base), folder / "pool" / name).merge_and_unload().state_dict()
        for key, tensor in dict(summed.named_parameters()).items():
            tensor += c * (merged[key] - start[key])
    exact = summed(ids).logits
    torch.testing.assert_close(installed(ids).logits, exact, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(loaded(ids).logits, exact, rtol=1e-5, atol=1e-5)


def test_an_adapter_that_is_not_in_the_pool_keeps_its_own_scale(pool: Pool, tmp_path: Path, tiny_llama: Path) -> None:
    save_adapter(tiny_llama, tmp_path / "new", seed=9, r=4, lora_alpha=20)
    new = open_pool(PoolConfig(experts=[tmp_path / "new"]), model=str(tiny_llama), alone=True)
    weights = pool.adopt(new.experts[0])
    for module in lora_modules(weights):
        np.testing.assert_allclose(product(weights, module), of_expert(new, "new", module), atol=1e-6)


TOGETHER: dict[str, list[dict[str, object]]] = {
    "biases of different targets": [
        {"target_modules": ["q_proj"], "bias": "all"},
        {"target_modules": ["v_proj"], "bias": "all"},
    ],
    "all biases and a module adapted elsewhere": [
        {"target_modules": ["q_proj"], "bias": "all"},
        {"target_modules": ["k_proj"]},
    ],
    "LoRA and whole head": [
        {"target_modules": ["q_proj", "lm_head"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    ],
    "LoRA and whole embedding": [
        {"target_modules": ["embed_tokens"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
    ],
    "LoRA within a whole layer": [
        {"target_modules": ["down_proj"], "r": 2},
        {"target_modules": ["q_proj"], "modules_to_save": ["layers.0.mlp"]},
    ],
}
"""Experts in which one parameter has different names, or in which one has a LoRA where the other has it whole."""


@pytest.mark.parametrize("forms", TOGETHER.values(), ids=TOGETHER)
def test_a_parameter_that_experts_name_differently_is_mixed_once(
    tmp_path: Path, forms: list[dict[str, object]]
) -> None:
    base = save_llama(tmp_path / "base", attention_bias=True)
    for seed, (name, lora) in enumerate(zip("ab", forms, strict=True)):
        save_adapter(base, tmp_path / "pool" / name, seed=seed, **lora)
    mix = {"a": 0.7, "b": -0.4}
    start = _parameters(base)
    whole = {name: _parameters(base, tmp_path / "pool" / name) for name in mix}
    want = {key: x + sum(c * (whole[name][key] - x) for name, c in mix.items()) for key, x in start.items()}

    pool = open_pool(PoolConfig(experts=tmp_path / "pool"), model=str(base))
    save_expert(Materializer(pool), row(*mix.items()), tmp_path / "best", base=str(base))
    model = load(base)
    Installer(model, pool.adapter).install(Materializer(pool).one(row(*mix.items())))
    for got in (model.state_dict(), _parameters(base, tmp_path / "best")):
        for key, expected in want.items():
            torch.testing.assert_close(got[key].double(), expected, atol=2e-6, rtol=0, msg=key)


def _parameters(base: Path, adapter: Path | None = None) -> dict[str, torch.Tensor]:
    """The base model's parameters in fp64, with an adapter merged by peft."""
    model = load(base).double()
    if adapter:
        model = PeftModel.from_pretrained(model, adapter, autocast_adapter_dtype=False).double().merge_and_unload()
    return model.state_dict()


def test_an_expert_without_a_lora_has_whole_tensors_alone(tmp_path: Path, tiny_llama: Path) -> None:
    save_adapter(tiny_llama, tmp_path / "pool" / "a", seed=0)
    save_adapter(tiny_llama, tmp_path / "pool" / "b", seed=1, modules_to_save=["lm_head"])
    file = tmp_path / "pool" / "b" / "adapter_model.safetensors"
    head = "base_model.model.lm_head.weight"
    save_file({head: load_file(file)[head]}, file, metadata={"format": "pt"})
    with torch.no_grad():
        _compare_with_peft(tmp_path, tiny_llama, row(("a", 0.7), ("b", 0.6)))


@pytest.mark.parametrize("tied", [True, False])
def test_a_lora_on_a_tied_embedding_and_the_whole_head_are_refused(tmp_path: Path, tied: bool) -> None:
    base = save_llama(tmp_path / "base", tied=tied)
    save_adapter(base, tmp_path / "pool" / "a", seed=0, target_modules=["q_proj", "embed_tokens"])
    save_adapter(base, tmp_path / "pool" / "b", seed=1, modules_to_save=["lm_head"])
    if not tied:
        assert open_pool(PoolConfig(experts=tmp_path / "pool"), model=str(base)).names == ["a", "b"]
        return
    with pytest.raises(UserError, match=r"a: has a LoRA on model\.embed_tokens, b has lm_head\.weight as a whole"):
        open_pool(PoolConfig(experts=tmp_path / "pool"), model=str(base))


def test_a_mix_of_experts_of_some_layers_names_only_these(tmp_path: Path, tiny_llama: Path) -> None:
    for seed, name in enumerate("ab"):
        save_adapter(tiny_llama, tmp_path / "pool" / name, seed=seed, layers_to_transform=[0])
    pool = open_pool(PoolConfig(experts=tmp_path / "pool", space="product"), model=str(tiny_llama))
    save_expert(Materializer(pool), row(("a", 0.5), ("b", 0.5)), tmp_path / "best", base=str(tiny_llama))
    adapted = PeftModel.from_pretrained(load(tiny_llama), tmp_path / "best")
    layers = {name.split(".layers.")[1][0] for name, _ in adapted.named_parameters() if ".lora_A." in name}
    assert layers == {"0"}
