import pathlib
import runpy

import numpy as np
import pytest
from conftest import SMALL

import aisp_llama

PROMPT = "Describe the sea."
EXAMPLE = pathlib.Path(__file__).parent.parent / "examples" / "own_method.py"


class Plain:
    """Perturbs nothing, and keeps what it is told."""

    keeps_pre_logits = True

    def __init__(self, perturbation=None, temperature=None):
        self.perturbation, self.temperature, self.told = perturbation, temperature, []

    def propose(self):
        return [aisp_llama.Proposal(self.perturbation, self.temperature)] * 2

    def observe(self, outcomes):
        self.told.append(outcomes)


def run(brief, method):
    return brief.align(PROMPT, method=method, samples=2, iterations=2, max_tokens=6)


def test_without_a_perturbation_it_is_greedy(brief):
    method = Plain()
    answer = run(brief, method)
    assert answer.response == brief.align(PROMPT, method="greedy", max_tokens=6).response
    assert len(method.told) == 2
    for outcome in method.told[0]:
        tokens = len(outcome["tokens"])
        assert outcome["pre_logits"].shape == (tokens, brief.width)
        assert outcome["surprise"].shape == outcome["entropy"].shape == (tokens,)
        assert outcome["reward"] == answer.reward


def test_a_perturbation_moves_the_text(brief):
    noise = np.random.default_rng(1).standard_normal((6, brief.width), np.float32)
    assert run(brief, Plain(3 * noise)).response != run(brief, Plain()).response
    assert run(brief, Plain(0 * noise)).response == run(brief, Plain()).response


def test_draws_differ_by_candidate_and_repeat_by_seed(brief):
    first, second = run(brief, Plain(temperature=1.0)), run(brief, Plain(temperature=1.0))
    texts = {candidate["text"] for candidate in first.candidates}
    assert len(texts) > 1
    assert first.response == second.response


def test_a_wrong_shape_is_told(brief):
    with pytest.raises(ValueError, match="columns"):
        run(brief, Plain(np.zeros((6, 3), np.float32)))


def test_what_it_raises_comes_out(brief):
    class Broken(Plain):
        def observe(self, outcomes):
            raise ZeroDivisionError("weights")

    with pytest.raises(ZeroDivisionError, match="weights"):
        run(brief, Broken())
    with pytest.raises(ValueError, match="propose"):
        brief.align(PROMPT, method=object(), **SMALL)


def test_the_example_learns(brief):
    method = runpy.run_path(str(EXAMPLE))["WeightedMean"](4, 8, brief.width)
    answer = brief.align(PROMPT, method=method, **SMALL)
    assert len(answer.candidates) == 8
    assert np.abs(method.mean).sum() > 0
