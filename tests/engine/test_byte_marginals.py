"""The bytes of tokens, and the distribution of a text's next byte."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from real_tokenizers import TOKENIZERS, from_disk, sentence_pieces
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from evoswarm.engine import TransformersEngine
from evoswarm.engine.combined.covers import END, Covers
from evoswarm.engine.combined.token_bytes import ByteVocabulary, token_bytes
from evoswarm.engine.encode import Encoder
from evoswarm.errors import UserError

CONFIG = TransformersEngine()
PROMPTS = ["2 + 2 = ?", "name a color that is not red", "x"]
SAMPLE = "What is 2 + 3?  Füße 数 \N{GRINNING FACE} hello\nworld"


# bytes of tokens


@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_bytes_of_tokens_are_those_of_the_text(name: str, tmp_path: Path) -> None:
    check_bytes(from_disk(TOKENIZERS[name](), tmp_path))


def test_the_bytes_of_tokens_of_the_sentencepiece_library_are_those_of_the_text(tmp_path: Path) -> None:
    check_bytes(sentence_pieces(tmp_path / "pieces"), SAMPLE.replace("  ", " ").replace("\n", " "))


def check_bytes(tokenizer, text: str = SAMPLE) -> None:
    found = token_bytes(Encoder(tokenizer, ends=(), longest=None))
    written = b"".join(found[number] for number in tokenizer(text, add_special_tokens=False).input_ids)
    assert written.removeprefix(b" ") == text.encode()
    assert not any(found[number] for number in tokenizer.all_special_ids)


def test_a_token_whose_bytes_are_not_known_is_named() -> None:
    core = Tokenizer(models.BPE(vocab={"a": 0, "b": 1, "c\N{CJK UNIFIED IDEOGRAPH-6570}": 2}, merges=[]))
    core.decoder = decoders.Replace("\N{CJK UNIFIED IDEOGRAPH-6570}", "\N{REPLACEMENT CHARACTER}")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, name_or_path="odd")
    with pytest.raises(UserError, match=r"odd: the bytes of token 2 \('c数'\) are not known"):
        token_bytes(Encoder(tokenizer, ends=(), longest=None))


# the distribution of the next byte


def marginals(words: list[bytes], text: bytes, *, most: int = 99) -> np.ndarray:
    """p(symbol | text) of a model whose next token depends on all tokens before; the last word is the end."""
    covers = Covers(ByteVocabulary(dict(enumerate(words[:-1]))), ends=[len(words) - 1], most=most)
    for byte in [*text, None]:
        if covers.open is not None:
            covers.read(np.log(tokens(covers.open, len(words))))
        if byte is not None:
            covers.append(byte)
    return covers.probabilities()


def tokens(path: tuple[int, ...], size: int) -> np.ndarray:
    weights = np.random.default_rng([7, *path]).random(size) + 0.05
    return weights / weights.sum()


def enumerated(words: list[bytes], text: bytes) -> np.ndarray:
    """p(text and then this symbol) [257], from all encodings; each of them is followed until it is longer."""
    joint = np.zeros(END + 1)

    def follow(path: tuple[int, ...], written: bytes, mass: float) -> None:
        if len(written) > len(text):
            joint[written[len(text)]] += mass * written.startswith(text)
        elif text.startswith(written):
            each = tokens(path, len(words))
            joint[END] += mass * each[-1] * (written == text)
            for number, word in enumerate(words[:-1]):
                follow((*path, number), written + word, mass * each[number])

    follow((), b"", 1.0)
    return joint


ONE_WAY = [b"a", b"bc", b"bd", b"ce", b"\xc3\xbc", b"<end>"]
"""No text has two encodings. The last word is the end."""


@pytest.mark.parametrize("text", [b"", b"a", b"b", b"ab", b"bc", b"abc", b"ce", b"bcab", b"\xc3", b"a\xc3\xbc"])
def test_marginals_are_exact_where_a_text_has_one_encoding(text: bytes) -> None:
    expected = enumerated(ONE_WAY, text)
    np.testing.assert_allclose(marginals(ONE_WAY, text), expected / expected.sum(), rtol=1e-6)


@pytest.mark.parametrize("text", [b"", b"a", b"ab", b"aba", b"abab", b"cab"])
def test_what_is_left_out_is_the_mass_of_other_encodings(text: bytes) -> None:
    words = [b"a", b"b", b"ab", b"aba", b"c", b"ca", b"<end>"]
    kept = marginals(words, text)
    assert kept.sum() == pytest.approx(1)
    # By hand: the covers whose first tokens are the likeliest encoding of what they write.
    joint = np.zeros(END + 1)
    best: dict[bytes, tuple[float, tuple[int, ...]]] = {b"": (1.0, ())}
    for size in range(1, len(text) + 1):
        ending = [
            (mass * tokens(path, len(words))[number], (*path, number))
            for written, (mass, path) in best.items()
            for number, word in enumerate(words[:-1])
            if written + word == text[:size]
        ]
        best[text[:size]] = max(ending)
    for written, (mass, path) in best.items():
        each = tokens(path, len(words))
        joint[END] += mass * each[-1] * (written == text)
        for number, word in enumerate(words[:-1]):
            if (written + word).startswith(text) and len(written + word) > len(text):
                joint[(written + word)[len(text)]] += mass * each[number]
    np.testing.assert_allclose(kept, joint / joint.sum(), rtol=1e-6)
    assert (joint <= enumerated(words, text) + 1e-12).all()


def test_a_text_that_no_tokens_write_has_no_next_byte() -> None:
    assert not marginals([b"a", b"b", b"<end>"], b"az").any()
    assert not marginals([b"a", b"b", b"<end>"], b"ab", most=2).any()


def test_a_text_that_is_very_unlikely_has_a_next_byte() -> None:
    words = [b"a", b"b" * 40, b"<end>"]
    covers = Covers(ByteVocabulary(dict(enumerate(words[:-1]))), ends=[2], most=10_000)
    for byte in b"a" * 2000:
        covers.read(np.array([-9.0, -0.01, -5.0]))
        covers.append(byte)
    covers.read(np.array([-9.0, -0.01, -5.0]))
    assert covers.probabilities()[ord("b")] > 0.9
