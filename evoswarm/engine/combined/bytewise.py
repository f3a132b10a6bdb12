"""Several models of different vocabularies as one engine."""

from __future__ import annotations

import codecs
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from evoswarm.engine.base import Verified
from evoswarm.engine.combined.combination import Combination
from evoswarm.engine.combined.covers import END
from evoswarm.engine.combined.load import load_members
from evoswarm.engine.combined.reading import Reader
from evoswarm.engine.combined.rules import TINY, mixed
from evoswarm.engine.combined.token_bytes import ByteVocabulary, token_bytes
from evoswarm.engine.encode import Encoder, Ids
from evoswarm.engine.load import end_tokens
from evoswarm.engine.network import SingleNetwork
from evoswarm.engine.tokenizer import RunTokenizer, load_tokenizer
from evoswarm.engine.transformers import model_on_device
from evoswarm.engine.transformers_config import TransformersEngine
from evoswarm.errors import UserError
from evoswarm.utility.types import OptionScore, Prompt
from evoswarm.weights.members import MIXING

NO_LIMIT = 1 << 30
Choice = Callable[[int, bytes, np.ndarray], int]
"""The next symbol of the text at a position, given its bytes and the probabilities of all symbols [257]."""


class ByteEngine:
    """Greedy answers and option scores under p(byte | text) = sum_i c_i p_i(byte | text); see `covers`.

    Each prompt is encoded by every model's own tokenizer and chat template; what comes after it is mixed byte by byte,
    and END is one of the symbols. A model whose vocabulary cannot write a text, or that has written `max_new_tokens` of
    its own tokens, is left out from there on; an answer ends where no model goes on. A last character that is not
    complete is dropped.

    Memory is that of `CombinedEngine`; time is one pass of every model that has a coefficient per byte.

    Attributes:
        tokens: those of prompts that all models have `read`, and bytes that were `written`.
    """

    exact = True

    def __init__(
        self, config: TransformersEngine, *, combination: Combination, tokenizer: RunTokenizer | None = None
    ) -> None:
        """Load all models, each with its own tokenizer. `tokenizer` says which tags of reasoning there are.

        Raises:
            UserError: one cannot be loaded, or the bytes of a token are not known.
        """
        torch.set_num_threads(config.threads)
        self.combination, self.batch_size = combination, config.batch_size
        self.tokens, self.steps = Counter[str](), Counter[str]()
        models = load_members(combination.members, lambda name: model_on_device(name, config))
        tags, trust = tokenizer.tags if tokenizer else (), config.trust_remote_code
        self._readers: list[Reader] = []
        shared: dict[str, tuple[Encoder, ByteVocabulary]] = {}
        for member, model in zip(combination.members, models, strict=True):
            network = SingleNetwork(model)
            if member.model not in shared:
                own = RunTokenizer(load_tokenizer(member.model, trust_remote_code=trust), tags)
                shared[member.model] = _vocabulary(own, network)
                shared[member.model][0].tokens = self.tokens
            self._readers.append(Reader(network, *shared[member.model]))
        self.install(None)

    def install(self, weights: Mapping[str, np.ndarray] | None) -> None:
        """See `CombinedEngine.install`."""
        self._coefficients = self.combination.weights(None if weights is None else weights[MIXING])

    def sleep(self) -> None:
        """See `Engine.sleep`. It keeps everything."""

    def close(self) -> None:
        """See `Engine.close`."""
        for reader in self._readers:
            reader.network.model.to("meta")

    def generate(self, prompts: Sequence[Prompt], *, max_new_tokens: int, stop: Sequence[str] = ()) -> list[str]:
        """See `Engine.generate`."""
        ends = tuple(end.encode() for end in stop)

        def likeliest(position: int, text: bytes, scores: np.ndarray) -> int:
            return END if text.endswith(ends) or scores.max() <= TINY else int(scores.argmax())

        encoder = self._readers[0].encoder
        written = self._write(self._encoded(prompts), likeliest, limit=max_new_tokens, stop=stop)
        return [encoder.answered(prompt, _text(data), stop) for prompt, data in zip(prompts, written, strict=True)]

    def verify(
        self,
        prompts: Sequence[Prompt],
        drafts: Sequence[str],
        *,
        max_new_tokens: int,
        stop: Sequence[str] = (),
        logprobs: bool = False,
    ) -> list[Verified]:
        """See `Engine.verify`. It generates; log-probabilities are those of drafts without a limit."""
        replies = self.generate(prompts, max_new_tokens=max_new_tokens, stop=stop)
        if not logprobs:
            return [Verified(reply) for reply in replies]
        scores = self._scores(self._encoded(prompts), drafts, end=True, stop=stop)
        return [Verified(reply, score.logprob) for reply, score in zip(replies, scores, strict=True)]

    def loglikelihood(
        self, prompts: Sequence[Prompt], options: Sequence[Sequence[str]]
    ) -> list[tuple[OptionScore, ...]]:
        """See `Engine.loglikelihood`. The sum is over bytes, which are what a score counts in the place of tokens."""
        pairs = [(prompt, option) for prompt, row in zip(prompts, options, strict=True) for option in row]
        rows = [[reader.encoder.before_option(prompt) for prompt, _ in pairs] for reader in self._readers]
        found = iter(self._scores(rows, [option for _, option in pairs]))
        return [tuple(next(found) for _ in row) for row in options]

    def rolling(self, texts: Sequence[str]) -> list[OptionScore]:
        """
        Raises:
            UserError: always; see `answers.require_answers`, which says so before.
        """
        raise UserError("pool.kind models: models of different vocabularies give no likelihood of whole texts")

    def _encoded(self, prompts: Sequence[Prompt]) -> list[list[Ids]]:
        """The token ids of prompts for each model."""
        return [[reader.encoder.prompt(prompt) for prompt in prompts] for reader in self._readers]

    def _scores(
        self, rows: Sequence[Sequence[Ids]], texts: Sequence[str], *, end: bool = False, stop: Sequence[str] = ()
    ) -> list[OptionScore]:
        """The score of each text after its prompt, whose token ids each model has; with `end`, also of its end."""
        wanted = [[*text.encode(), *([END] if end else [])] for text in texts]
        logprobs: list[list[float]] = [[] for _ in texts]
        greedy = [True] * len(texts)

        def given(position: int, text: bytes, scores: np.ndarray) -> int:
            if len(text) == len(wanted[position]):
                return END
            symbol = wanted[position][len(text)]
            logprobs[position].append(math.log(max(scores[symbol], TINY)))
            greedy[position] &= scores.argmax() == symbol
            return symbol

        self._write(rows, given, limit=NO_LIMIT, stop=stop)
        return [OptionScore(math.fsum(each), len(each), bool(hit)) for each, hit in zip(logprobs, greedy, strict=True)]

    def _write(self, rows: Sequence[Sequence[Ids]], choose: Choice, *, limit: int, stop: Sequence[str]) -> list[bytes]:
        """Write after prompts, of which each model has the token ids, until `choose` says END."""
        found: list[bytes] = []
        for start in range(0, len(rows[0]), self.batch_size):
            part = [row[start : start + self.batch_size] for row in rows]
            found += self._batch(part, lambda i, *given, start=start: choose(start + i, *given), limit, stop)
        return found

    @torch.inference_mode()
    def _batch(self, rows: Sequence[Sequence[Ids]], choose: Choice, limit: int, stop: Sequence[str]) -> list[bytes]:
        active = np.flatnonzero(self._coefficients).tolist() or [0]
        readings = [self._readers[i].read(rows[i], limit=limit, stop=stop) for i in active]
        texts = [b""] * len(rows[0])
        left = list(range(len(texts)))
        while left:
            each = np.stack([reading.probabilities(left) for reading in readings])
            chosen = {
                i: choose(i, texts[i], _normal(p))
                for i, p in zip(left, mixed(each, self._coefficients[active]), strict=True)
            }
            left = [i for i, symbol in chosen.items() if symbol != END]
            for i in left:
                texts[i] += bytes([chosen[i]])
                for reading in readings:
                    reading.append(i, chosen[i])
        self.tokens["written"] += sum(map(len, texts))
        return texts


def _vocabulary(tokenizer: RunTokenizer, network: SingleNetwork) -> tuple[Encoder, ByteVocabulary]:
    """What encodes the prompts of a model, and the tokens that it writes."""
    ends = end_tokens(network.model.generation_config, tokenizer.tokenizer)
    encoder = tokenizer.encoder(ends=ends, longest=network.longest, rows=network.rows)
    words = token_bytes(encoder, rows=network.rows)
    return encoder, ByteVocabulary({number: word for number, word in words.items() if number not in encoder.ends})


def _normal(scores: np.ndarray) -> np.ndarray:
    """Scores with the sum 1; those of a text that no model continues stay as they are."""
    return scores / scores.sum() if scores.max() > TINY else scores


def _text(data: bytes) -> str:
    """Bytes as text, without a character at the end that is not complete."""
    return codecs.getincrementaldecoder("utf-8")("replace").decode(data)
