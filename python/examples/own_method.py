"""A method of one's own: the paper's weighted mean of Gaussian perturbations, in thirty lines.

python own_method.py MODEL.gguf "Describe the sea."
"""

import sys

import numpy as np

import aisp_llama


class WeightedMean:
    """u ← Σ w v, w ∝ exp(r/λ); λ is the standard deviation of the rewards."""

    def __init__(self, samples: int, tokens: int, width: int, sigma: float = 1.0):
        self.shape, self.sigma = (samples, tokens, width), sigma
        self.mean = np.zeros((tokens, width), np.float32)
        self.random = np.random.default_rng(1)

    def propose(self):
        noise = self.random.standard_normal(self.shape, np.float32)
        self.perturbations = self.mean + self.sigma * noise
        return [aisp_llama.Proposal(v) for v in self.perturbations]

    def observe(self, outcomes):
        outcomes = [o for o in outcomes if np.isfinite(o["reward"])]
        rewards = np.array([o["reward"] for o in outcomes])
        weights = np.exp((rewards - rewards.max()) / max(rewards.std(), 1e-9))
        drawn = self.perturbations[[o["candidate"] for o in outcomes]]
        self.mean = np.tensordot(weights / weights.sum(), drawn, 1).astype(np.float32)


if __name__ == "__main__":
    model, prompt = sys.argv[1:]
    aligner = aisp_llama.Aligner(model, reward=lambda samples: [-len(s.response) for s in samples])
    method = WeightedMean(16, 32, aligner.width)
    answer = aligner.align(prompt, method=method, samples=16, iterations=4, max_tokens=32)
    print(answer, answer.reward)
