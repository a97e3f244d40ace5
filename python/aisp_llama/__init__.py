"""Test-time alignment of local GGUF models: answers that a reward likes, in the model's own words.

>>> aligner = Aligner("model.gguf", reward="rule:words=..12")
>>> aligner.align("Describe the sea.", max_tokens=32).response
"""

from __future__ import annotations

import queue
import threading
from dataclasses import dataclass, field
from typing import Any, Callable, Iterator, NamedTuple, Optional, Sequence, Union

from ._aisp_llama import Aligner as _Aligner
from ._aisp_llama import AlignmentError, Stop, __version__

__all__ = ["Aligner", "Alignment", "AlignmentError", "Proposal", "Sample", "Stop", "__version__"]

Prompt = Union[str, "list[dict[str, str]]"]


class Sample(NamedTuple):
    """What a reward is given."""

    #: The prompt as the user wrote it; of a conversation the last user message.
    prompt: str
    #: The response, special tokens left out.
    response: str
    #: The conversation up to the response, a system prompt in it; empty where the prompt is all there is.
    messages: "list[dict[str, str]]" = []


@dataclass
class Proposal:
    """A candidate that a method of your own wants written."""

    #: What is added to the pre-logits, float32 of shape [tokens, d]; behind its rows nothing is.
    perturbation: Any = None
    #: Temperature of the draws; None takes the most probable token.
    temperature: Optional[float] = None


@dataclass(frozen=True)
class Alignment:
    """An answer, and how it came about."""

    #: The answer.
    response: str
    #: Its reward, in the reward's own unit.
    reward: float
    #: Its held-out reward, where there is one.
    held_out: Optional[float]
    #: How dear it is to the model itself: nats, per_token, surprise (nats and nats a token).
    price: Optional[dict]
    #: Why the run ended: completed, budget, time_limit, target_reward, divergence, patience, interrupted.
    stop: str
    #: All candidates, the best first; each with text, reward, price, tokens, end and its place.
    candidates: list[dict] = field(repr=False)
    #: Every iteration in numbers: mean_reward, best_reward, mean_price, ess, r2 and so on.
    iterations: list[dict] = field(repr=False)
    #: Candidates, tokens and reward calls.
    usage: dict = field(repr=False)
    #: Seconds.
    timings: dict = field(repr=False)
    #: All of it, as `aisp-llama run --json` prints it.
    raw: dict = field(repr=False)

    @classmethod
    def _of(cls, raw: dict) -> "Alignment":
        return cls(
            response=raw["response"],
            reward=raw["reward"],
            held_out=raw.get("held_out"),
            price=raw["price"],
            stop=raw["stop"],
            candidates=raw.get("candidates", []),
            iterations=raw["iterations"],
            usage=raw["usage"],
            timings=raw["timings"],
            raw=raw,
        )

    def __str__(self) -> str:
        return self.response


class Aligner:
    """A model with its reward; answers one call at a time.

    model: a GGUF file.
    reward: a description as on the command line ("judge:self", "rule:json", "reward.gguf"), a list of
        them, which are added, or a function from a list of `Sample` to as many numbers, None for
        one that has no reward.
    held_out: another reward that only watches.
    gpu_layers: layers on the GPU; None leaves it to llama.cpp.
    threads: CPU threads; None takes the physical cores.
    context: tokens of prompt and response together; None takes what they need.
    parallel: candidates side by side; answers do not depend on it.
    chat_template: Jinja, or a name that llama.cpp knows, in place of that of the file.

    Raises ValueError for a wrong value, OSError for a file, AlignmentError for a model that cannot
    generate, or be a reward.
    """

    def __init__(
        self,
        model: Any,
        reward: Union[str, Sequence[str], Callable[[list[Sample]], Sequence[Optional[float]]]],
        *,
        held_out: Any = None,
        gpu_layers: Optional[int] = None,
        threads: Optional[int] = None,
        context: Optional[int] = None,
        parallel: Optional[int] = None,
        chat_template: Optional[str] = None,
    ) -> None:
        self._inner = _Aligner(
            model,
            reward,
            Sample,
            held_out=held_out,
            gpu_layers=gpu_layers,
            threads=threads,
            context=context,
            parallel=parallel,
            chat_template=chat_template,
        )

    @property
    def width(self) -> int:
        """Width d of the pre-logits."""
        return self._inner.width

    @property
    def vocabulary(self) -> int:
        """Tokens that there are."""
        return self._inner.vocabulary

    def tokenize(self, text: str) -> list[int]:
        """Tokens of a text, special ones written in it among them."""
        return self._inner.tokenize(text)

    def detokenize(self, tokens: Sequence[int]) -> str:
        """Text of tokens, special ones left out."""
        return self._inner.detokenize([int(token) for token in tokens])

    def align(
        self,
        prompt: Prompt,
        *,
        system: Optional[str] = None,
        chat: bool = True,
        **settings: Any,
    ) -> Alignment:
        """Searches for the answer that the reward likes best.

        prompt: a text, or a conversation as a list of {"role": …, "content": …}.
        system: a system prompt in front of a text.
        chat: False for a text that the model continues, without a template.
        settings: method ("search", "aisp", "best-of-n", …, or an object with `propose` and
            `observe`), samples, iterations, max_tokens, seed, time_limit (seconds), target_reward,
            patience, stop_on_divergence, observe (a function that is told every event), stop (a
            `Stop`), and the method's own, as `aisp-llama run --help` has them: steer=1, temp=0.8.

        An interrupt ends it with the best answer so far. Raises ValueError for a wrong value,
        AlignmentError where no candidate got a reward, and what a function of yours raises.
        """
        return Alignment._of(self._inner.align(_conversation(prompt, system, chat), settings))

    def align_all(
        self,
        prompts: Sequence[Prompt],
        *,
        system: Optional[str] = None,
        chat: bool = True,
        **settings: Any,
    ) -> list[Union[Alignment, Exception, None]]:
        """Answers to many prompts, side by side, each as `align` gives it.

        In place of an answer an exception says why there is none; None that an interrupt came first.
        """
        prompts = [_conversation(prompt, system, chat) for prompt in prompts]
        answers = self._inner.align_all(prompts, settings)
        return [Alignment._of(a) if isinstance(a, dict) else a for a in answers]

    def events(self, prompt: Prompt, **settings: Any) -> Iterator[dict]:
        """The same run as a generator of its events, as `aisp-llama run --trace` writes them.

        The last one has event "answer" and an `Alignment` as answer. Leaving the loop ends the run.
        """
        told: queue.SimpleQueue = queue.SimpleQueue()
        stop = settings.setdefault("stop", Stop())

        def work() -> None:
            try:
                answer = self.align(prompt, observe=told.put, **settings)
                told.put({"event": "answer", "answer": answer})
            except BaseException as error:  # handed to the caller's thread
                told.put(error)

        worker = threading.Thread(target=work, daemon=True)
        worker.start()
        try:
            while True:
                event = told.get()
                if isinstance(event, BaseException):
                    raise event
                yield event
                if event["event"] == "answer":
                    return
        finally:
            stop.request()
            worker.join()


def _conversation(prompt: Prompt, system: Optional[str], chat: bool) -> Prompt:
    if not isinstance(prompt, str):
        if system is not None:
            raise ValueError("system: the conversation has its own messages; put it first there")
        return prompt
    if not prompt.strip():
        raise ValueError("prompt: the prompt is empty")
    if not chat:
        if system is not None:
            raise ValueError("system: a text that is continued has none; leave out chat=False")
        return prompt
    messages = [] if system is None else [{"role": "system", "content": system}]
    return [*messages, {"role": "user", "content": prompt}]
