#!/usr/bin/env python3
"""Writes tests/fixtures/aisp_fixture.json: AISP updates computed by numpy from the paper's formulas.

The controller in src/control is compared with these numbers. Nothing here shares code or method
with it: all perturbations V are held at once, weights are plain numbers in extended precision
instead of logarithms, and lambda is found by zooming into a grid instead of by bisection.

    python3 scripts/aisp_fixture.py

Needs numpy only. Rewards that are not finite are written as the strings "nan", "inf", "-inf".
Source: arXiv 2510.26219; masking, rejection and lambda by effective sample size as in the docs.
"""

import json
from pathlib import Path

import numpy as np

N, HORIZON, WIDTH = 6, 4, 3
OUT = Path(__file__).resolve().parent.parent / "tests" / "fixtures" / "aisp_fixture.json"


def plain_weights(scores):
    """exp(s - max s) / sum, extended precision (80-bit where the platform has it)."""
    e = np.exp(scores - scores.max())
    return e / e.sum()


def effective_size(rewards, penalties, lam):
    return float(1 / (plain_weights(rewards / lam - penalties) ** 2).sum())


def lambda_for_size(rewards, penalties, target):
    """The only lambda between 1e-9 and 1e4 spreads of the rewards that gives the target."""
    spread = rewards.max() - rewards.min()
    low, high = np.log(float(spread) * 1e-9), np.log(float(spread) * 1e4)
    grid = np.linspace(low, high, 4001)
    for depth in range(12):
        excess = [effective_size(rewards, penalties, np.exp(x)) - target for x in grid]
        crossings = np.nonzero(np.diff(np.sign(excess)))[0]
        if depth == 0 and len(crossings) != 1:
            raise SystemExit(f"the case must have one root, it has {len(crossings)}")
        if len(crossings) == 0:
            break
        at = crossings[0]
        grid = np.linspace(grid[at], grid[at + 1], 41)
    return float(np.exp(grid[len(grid) // 2]))


def update(case, noise):
    """One AISP update, straight from the formulas."""
    u = np.array(case["mean"], dtype=np.longdouble)
    sigma, alpha = np.longdouble(case["sigma"]), np.longdouble(case["alpha"])
    rewards = np.array([float(r) for r in case["rewards"]])
    v = u + sigma * noise
    ends = [min(t, HORIZON) if case["mask"] else HORIZON for t in case["lengths"]]
    consumed = np.array([[t < end for t in range(HORIZON)] for end in ends])
    valid = np.nonzero(np.isfinite(rewards))[0]

    penalties = np.zeros(N, dtype=np.longdouble)
    if sigma > 0:
        for i in range(N):
            for t in range(HORIZON):
                if consumed[i, t]:
                    penalties[i] += (1 - alpha) / sigma**2 * (u[t] @ (v[i, t] - u[t]))

    weights, lam, size, new = np.zeros(N, dtype=np.longdouble), None, 0.0, u.copy()
    if len(valid):
        r, p = rewards[valid].astype(np.longdouble), penalties[valid]
        kind, value = case["rule"]
        lam = value if kind == "fixed" else lambda_for_size(r, p, value * len(valid))
        weights[valid] = plain_weights(r / lam - p)
        size = effective_size(r, p, lam)
        for t in range(HORIZON):
            alive = [i for i in valid if consumed[i, t]]
            if alive and sigma > 0:
                w = weights[alive] / weights[alive].sum()
                new[t] = (w[:, None] * v[alive, t]).sum(axis=0)
    norm2 = float((new**2).sum())
    return {
        "penalties": penalties.astype(float).tolist(),
        "weights": weights.astype(float).tolist(),
        "lambda": lam,
        "ess": size,
        "rejected": N - len(valid),
        "mean": new.astype(float).tolist(),
        "kl": norm2 / float(2 * sigma**2) if sigma > 0 else 0.0,
        "u_norm": float(np.sqrt(norm2 / (HORIZON * WIDTH)) / sigma) if sigma > 0 else 0.0,
    }


def main():
    rng = np.random.default_rng(20251026)
    noise = rng.standard_normal((N, HORIZON, WIDTH)).astype(np.float32)
    mean = (0.4 * rng.standard_normal((HORIZON, WIDTH))).astype(np.float32)
    zero = np.zeros_like(mean)
    rewards = [1.25, -0.5, 2.0, 0.75, 3.5, -4.0]
    broken = [1.25, "nan", 2.0, "inf", 0.5, "-inf"]
    lengths = [4, 2, 9, 1, 3, 4]
    half = float(np.sqrt(0.5))

    def case(name, rule, mean=mean, rewards=rewards, lengths=lengths, sigma=half, alpha=0.9, mask=True):
        return {"name": name, "rule": rule, "mean": mean.astype(float).tolist(), "rewards": rewards,
                "lengths": lengths, "sigma": sigma, "alpha": alpha, "mask": mask}

    cases = [
        case("first iteration, fixed lambda", ["fixed", 0.5], mean=zero),
        case("fixed lambda, masked", ["fixed", 1.5]),
        case("fixed lambda, unmasked", ["fixed", 1.5], mask=False),
        case("exact importance sampling", ["fixed", 0.8], alpha=0.0, mask=False),
        case("no penalty", ["fixed", 0.8], alpha=1.0),
        case("rejected rewards, fixed lambda", ["fixed", 0.7], rewards=broken),
        case("rejected rewards, by ess", ["ess", 0.6], rewards=broken, mask=False),
        case("first iteration, by ess", ["ess", 0.25], mean=zero),
        case("by ess, masked", ["ess", 0.5], alpha=0.8),
        case("by ess, unmasked", ["ess", 0.4], alpha=0.8, sigma=1.3, mask=False),
        case("late rows out of reach", ["fixed", 1.0], lengths=[2, 1, 2, 0, 2, 1]),
        case("late rows of tiny weight", ["fixed", 0.002], lengths=[4, 3, 2, 1, 1, 4]),
        case("all rejected", ["fixed", 1.0], rewards=["nan"] * N),
        case("no noise", ["fixed", 1.0], mean=zero, sigma=0.0),
    ]
    for c in cases:
        c["expected"] = update(c, noise.astype(np.longdouble))
    document = {"horizon": HORIZON, "width": WIDTH, "noise": noise.astype(float).tolist(), "cases": cases}
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")


if __name__ == "__main__":
    main()
