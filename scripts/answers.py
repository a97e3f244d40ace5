#!/usr/bin/env python3
"""The answers of two methods side by side, from the folders of comparisons, as a page to read.

    scripts/answers.py TITLE=FOLDER=PROMPTS.jsonl… >docs/answers.md

The methods are the first two of each comparison. Every prompt of seed 0 that both have answered is
shown, in order, none left out.
"""

import json
import sys
from pathlib import Path

HEAD = """# Answers

What the default answers, beside the best of as many plain samples' tokens, for people to read: the prompts
of each comparison in their order, none left out between the first and the last. With each answer stand its
reward and its price in nats a token (by the model itself, 0 on average for its own samples). The models
are small, and so are the rewards' wits: what pleases a film-review model or a judge of 135M parameters need
not please a reader, and both methods find it.
"""


def lines(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def main():
    print(HEAD)
    for argument in sys.argv[1:]:
        title, folder, prompts = argument.split("=")
        texts = [line["prompt"] for line in lines(prompts)]
        settings = json.loads(Path(folder, "settings.json").read_text())
        methods = [method["name"] for method in settings["methods"][:2]]
        rows = {
            (row["prompt"], row["method"]): row
            for row in lines(Path(folder, "results.jsonl"))
            if row["seed"] == settings["first_seed"] and "response" in row
        }
        print(f"\n## {title}\n")
        for index, prompt in enumerate(texts):
            both = [rows.get((index, method)) for method in methods]
            if None in both:
                continue
            print(f"**{prompt}**\n")
            for method, row in zip(methods, both):
                answer = " ".join(row["response"].split())
                figures = f"{row['reward']:.2f} at {row['price']:.2f}"
                print(f"- `{method}`, {figures}: {answer}")
            print()


if __name__ == "__main__":
    main()
