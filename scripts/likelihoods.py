#!/usr/bin/env python3
"""What a model that did not write them makes of the answers of a comparison.

    scripts/likelihoods.py PROGRAM MODEL.gguf FOLDER PROMPTS.jsonl

Prints a table: mean log p a token of each method's answers, and the difference to the first method's
with the 95 % interval of a paired t over prompts.
"""

import json
import math
import subprocess
import sys
from pathlib import Path

# Upper 2.5 % points of Student's t, by degrees of freedom.
T = {3: 3.182, 5: 2.571, 7: 2.365, 11: 2.201, 15: 2.131, 23: 2.069, 31: 2.040, 49: 2.010}


def lines(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def interval(differences):
    """Mean and half the width of its interval; the next smaller degrees of freedom that are known."""
    n = len(differences)
    mean = sum(differences) / n
    variance = sum((x - mean) ** 2 for x in differences) / (n - 1)
    freedom = max(f for f in T if f <= n - 1)
    return mean, T[freedom] * math.sqrt(variance / n)


def main():
    program, model, folder, prompts = sys.argv[1:]
    texts = [line["prompt"] for line in lines(prompts)]
    settings = json.loads(Path(folder, "settings.json").read_text())
    methods = [method["name"] for method in settings["methods"]]
    rows = {
        (row["prompt"], row["method"]): row["response"]
        for row in lines(Path(folder, "results.jsonl"))
        if row["seed"] == settings["first_seed"] and "response" in row
    }
    common = [
        index
        for index in range(len(texts))
        if all((index, method) in rows for method in methods)
    ]
    cells = [(index, method) for method in methods for index in common]
    pairs = "".join(
        json.dumps({"prompt": texts[index], "response": rows[index, method]}) + "\n"
        for index, method in cells
    )
    command = [program, "score", "--reward", f"likelihood:{model};chat=off"]
    done = subprocess.run(command, input=pairs, capture_output=True, text=True, check=True)
    scores = [float(line) for line in done.stdout.splitlines()]
    of = dict(zip(cells, scores, strict=True))
    print(f"Mean log p a token of the answers by {Path(model).name}, {len(common)} prompts.\n")
    print("| method | log p a token | difference |\n|---|---|---|")
    for method in methods:
        own = [of[index, method] for index in common]
        shown = ""
        if method != methods[0]:
            mean, half = interval([of[i, method] - of[i, methods[0]] for i in common])
            shown = f"{mean:+.2f}, {mean - half:+.2f} to {mean + half:+.2f}"
        print(f"| {method} | {sum(own) / len(own):.2f} | {shown} |")


if __name__ == "__main__":
    main()
