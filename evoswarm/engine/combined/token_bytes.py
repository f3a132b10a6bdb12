"""The bytes that each token writes, for tokenizers of any kind."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from transformers import PreTrainedTokenizerBase

from evoswarm.engine.encode import Encoder
from evoswarm.errors import UserError

_UNKNOWN = "\N{REPLACEMENT CHARACTER}"
_BYTE = re.compile("<0x([0-9A-F]{2})>")
"""A byte of sentencepiece models."""


@dataclass(frozen=True)
class Matches:
    """Tokens that begin with some text, by their places in a vocabulary.

    Attributes:
        equal: those that are the text.
        longer: those that go on.
        following: the byte with which each of these goes on.
    """

    equal: range
    longer: slice
    following: np.ndarray

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self.equal) or len(self.following) > 0


class ByteVocabulary:
    """Tokens in the order of their bytes.

    Attributes:
        ids: [V], those of tokens that write something.
        known: the same as a set.
    """

    def __init__(self, words: Mapping[int, bytes]) -> None:
        """`words` are the bytes of tokens by their ids."""
        order = sorted((word, number) for number, word in words.items() if word)
        self._words = [word for word, _ in order]
        self.ids = np.array([number for _, number in order], np.int64)
        self.known = frozenset(number for _, number in order)
        self.beginning = lru_cache(maxsize=4096)(self._beginning)

    def _beginning(self, text: bytes) -> Matches:
        """The tokens that begin with a text."""
        size, words = len(text), self._words
        first = bisect_left(words, text)
        last = bisect_right(words, text, lo=first, key=lambda word: word[:size])
        longer = bisect_right(words, text, lo=first, hi=last)
        following = np.array([word[size] for word in words[longer:last]], np.int64)
        return Matches(range(first, longer), slice(longer, last), following)


def token_bytes(encoder: Encoder, *, rows: int | None = None) -> dict[int, bytes]:
    """The bytes that each token writes within a text, by its id; special tokens write nothing, unless they are tags.

    What the tokenizer decodes is what a token writes. Tokens with a part of a character are read as the bytes of a
    byte-level vocabulary (GPT-2) or of sentencepiece.

    Args:
        encoder: of the model.
        rows: the size of the model's vocabulary; None: that of the tokenizer.

    Raises:
        UserError: the bytes of a token are not known.
    """
    tokenizer = encoder.tokenizer
    numbers = sorted(set(tokenizer.get_vocab().values()))
    numbers = numbers if rows is None else [number for number in numbers if number < rows]
    names = tokenizer.convert_ids_to_tokens(numbers)
    before = tokenizer("a", add_special_tokens=False).input_ids[-1:]  # some decoders strip what starts a text
    start, *texts = _decoded(tokenizer, [before, *([*before, number] for number in numbers)])
    found = {}
    for number, name, text in zip(numbers, names, texts, strict=True):
        if number in encoder.special:
            found[number] = encoder.clean(name).encode()
        elif (written := _bytes_of(name, text.removeprefix(start))) is not None and text.startswith(start):
            found[number] = written
        else:
            raise UserError(
                f"{tokenizer.name_or_path}: the bytes of token {number} ({name!r}) are not known, so that its model "
                "cannot write with models of other vocabularies; leave it out, or use a utility with options"
            )
    return found


def _decoded(tokenizer: PreTrainedTokenizerBase, rows: list[list[int]]) -> list[str]:
    raw = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
    return [str(text) for text in tokenizer.batch_decode(rows, spaces_between_special_tokens=False, **raw)]


def _bytes_of(name: str, text: str) -> bytes | None:
    """The bytes of a token that is decoded to a text; None if they are not known."""
    if _UNKNOWN not in text or name == text:
        return text.encode()
    if byte := _BYTE.fullmatch(name):
        return bytes([int(byte[1], 16)])
    if not _ALPHABET.keys() >= set(name):
        return None
    written = bytes(_ALPHABET[letter] for letter in name)
    return written if written.decode(errors="replace") == text else None


def _alphabet() -> dict[str, int]:
    """The bytes of the letters of byte-level vocabularies: printable bytes stand for themselves."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = (byte for byte in range(256) if byte not in plain)
    return {chr(byte): byte for byte in plain} | {chr(256 + i): byte for i, byte in enumerate(others)}


_ALPHABET = _alphabet()
