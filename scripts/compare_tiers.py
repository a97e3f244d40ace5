#!/usr/bin/env python3
"""What the plugin's sampler tier costs against the exact one: same tokens, rewards, wall clock.

    scripts/compare_tiers.py ALIGN MODEL REWARD PROMPTS [--prompts 20]

ALIGN is the program of examples/plugin, MODEL one that speaks ChatML, PROMPTS a JSONL file. Runs
both tiers on each prompt, in turns, and prints a Markdown table.

In the first iteration both tiers draw the same noise around no mean, so that only rounding tells
their tokens apart: those are compared, up to the first difference in each candidate. Later means
follow from the rewards of what was written, and differ as that does.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import time

TIERS = ("exact", "sampler")
OPTIONS = ("-n", "24", "-s", "1", "-t", "2", "--samples", "16", "--iterations", "3")


def run(args: argparse.Namespace, prompt: str, tier: str) -> tuple[list[list[int]], float, float]:
    """The first iteration's tokens, the best reward, and the seconds taken."""
    text = f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
    command = [args.align, "-m", args.model, "-mr", args.reward, "-p", text, *OPTIONS]
    start = time.perf_counter()
    output = subprocess.run([*command, "--tier", tier], check=True, stdout=subprocess.PIPE).stdout
    seconds = time.perf_counter() - start
    lines = [json.loads(line) for line in output.splitlines()]
    tokens = [line["tokens"] for line in lines if line.get("iteration") == 0 and "tokens" in line]
    return tokens, lines[-1]["best_reward"], seconds


def common(a: list[int], b: list[int]) -> int:
    """Tokens before the first difference."""
    return len(os.path.commonprefix([a, b]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("align", "model", "reward", "file"):
        parser.add_argument(name)
    parser.add_argument("--prompts", type=int, default=20)
    args = parser.parse_args()
    with open(args.file, encoding="utf-8") as file:
        prompts = [json.loads(line)["prompt"] for line in file][: args.prompts]

    same = total = identical = candidates = 0
    ratios, rewards = [], []
    for number, prompt in enumerate(prompts):
        # Each tier goes first on every other prompt.
        order = TIERS if number % 2 == 0 else TIERS[::-1]
        runs = {tier: run(args, prompt, tier) for tier in order}
        exact, sampler = (runs[tier] for tier in TIERS)
        for a, b in zip(exact[0], sampler[0]):
            same += common(a, b)
            total += len(a)
            identical += a == b
            candidates += 1
        rewards.append((exact[1], sampler[1]))
        ratios.append(sampler[2] / exact[2])

    print(f"{len(prompts)} prompts, `{' '.join(OPTIONS)}`, {os.path.basename(args.model)}.\n")
    print("| sampler tier against exact tier | |")
    print("|---|---|")
    print(
        f"| tokens before a candidate's first difference | {100 * same / total:.1f} % of {total} |"
    )
    print(
        f"| candidates identical to the end | {100 * identical / candidates:.1f} % of {candidates} |"
    )
    print(f"| differences per token written alike | {(candidates - identical) / same:.4f} |")
    means = (statistics.mean(pair) for pair in zip(*rewards))
    print("| mean best reward, exact and sampler | {:.2f}, {:.2f} |".format(*means))
    print(f"| wall clock of a whole run, median ratio | {statistics.median(ratios):.2f} |")
    print(f"| lowest and highest ratio | {min(ratios):.2f}, {max(ratios):.2f} |")


if __name__ == "__main__":
    main()
