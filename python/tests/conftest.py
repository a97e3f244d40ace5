import os
import pathlib

import pytest

import aisp_llama

CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
MODELS = CACHE / "aisp-llama" / "models"
MODEL = MODELS / "SmolLM2-135M-Instruct.Q4_1.gguf"
FILM = MODELS / "film-review-reward.gguf"

#: A run of a few seconds.
SMALL = {"samples": 4, "iterations": 2, "max_tokens": 8}


def brevity(samples):
    return [-float(len(sample.response)) for sample in samples]


@pytest.fixture(scope="session")
def brief():
    """An aligner that likes short answers."""
    return aisp_llama.Aligner(MODEL, reward=brevity, threads=1)
