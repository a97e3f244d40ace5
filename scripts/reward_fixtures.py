#!/usr/bin/env python3
"""Writes the tiny reward models in tests/fixtures/rewards, and what transformers says of them.

Each has random weights and the shape of a published kind, as llama.cpp's converter writes it: tensor
names, labels, templates, what is left out. `expected.json` has the token ids and the scores that
Hugging Face's transformers gives to the same weights, tokens made by its own tokenizers.

    pip install torch transformers tokenizers safetensors gguf
    scripts/reward_fixtures.py
"""

import json
from pathlib import Path

import gguf
import torch
from safetensors.torch import save_file
from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaModel,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3ForSequenceClassification,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

OUT = Path(__file__).resolve().parent.parent / "tests/fixtures/rewards"
WIDTH, HEADS, LAYERS, HIDDEN, CONTEXT = 32, 2, 2, 64, 128
HALF = WIDTH // HEADS

PAIRS = [
    ("what is a cat?", "a small animal."),
    ("what is a cat?", "the moon is far."),
    ("name a colour", "blue, i think"),
    ("", "no prompt here"),
]
RERANK = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and "
    'the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n<Instruct>: Given a web search query, retrieve relevant passages that answer "
    "the query\n<Query>: {query}\n<Document>: {document}<|im_end|>\n"
    "<|im_start|>assistant\n<think>\n\n</think>\n\n"
)
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,:;!?'-"


def random(model, seed, deviation=0.2):
    """Random weights everywhere, norms around 1."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.normal_(0, deviation)
            if "norm" in name.lower() and name.endswith("weight"):
                value.add_(1)
    return model.eval()


def small(head):
    """Scores of a size at which half-precision attention and activations are below 1e-3."""
    with torch.no_grad():
        head.weight.mul_(0.4)


def array(tensor):
    return tensor.detach().to(torch.float32).numpy()


def chat(prompt, response):
    turns = (("user", prompt), ("assistant", response))
    return "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in turns)


def write(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


# Vocabularies, for both sides.


def byte_level(specials):
    """Bytes, a few merges and special tokens, as Qwen's vocabulary has them."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    point = {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(others)}
    tokens = [point[b] for b in range(256)]
    assert sorted(tokens) == sorted(alphabet)
    merges = [("t", "h"), ("th", "e"), ("y", "e"), ("ye", "s"), ("n", "o"), ("Ġ", "a")]
    tokens += ["".join(merge) for merge in merges]
    tokenizer = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(specials)
    return tokenizer, tokens + specials, merges


def add_byte_level(writer, tokens, merges, specials, end):
    count = len(tokens) - len(specials)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(
        [gguf.TokenType.NORMAL] * count + [gguf.TokenType.CONTROL] * len(specials)
    )
    writer.add_token_merges([" ".join(merge) for merge in merges])
    writer.add_eos_token_id(tokens.index(end))
    writer.add_add_bos_token(False)


# Decoders.


def decoder(path, architecture, core, extra):
    """A Llama or a Qwen3 without its head."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name(f"tiny {path.stem}")
    writer.add_block_count(LAYERS)
    writer.add_context_length(CONTEXT * 4)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(1)
    writer.add_key_length(HALF)
    writer.add_value_length(HALF)
    writer.add_rope_dimension_count(HALF)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_file_type(0)
    extra(writer)
    state = core.state_dict()

    def rotated(weight):
        # llama.cpp's Llama turns pairs of neighbours, Hugging Face's halves of a head.
        if architecture != "llama":
            return weight
        heads = weight.shape[0] // HALF
        halves = weight.reshape(heads, 2, HALF // 2, weight.shape[1])
        return halves.swapaxes(1, 2).reshape(weight.shape)

    writer.add_tensor("token_embd.weight", array(state["embed_tokens.weight"]))
    writer.add_tensor("output_norm.weight", array(state["norm.weight"]))
    names = {
        "input_layernorm": "attn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "self_attn.q_norm": "attn_q_norm",
        "self_attn.k_norm": "attn_k_norm",
        "post_attention_layernorm": "ffn_norm",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    for layer in range(LAYERS):
        for theirs, ours in names.items():
            weight = state.get(f"layers.{layer}.{theirs}.weight")
            if weight is not None:
                value = array(weight)
                value = rotated(value) if ours in ("attn_q", "attn_k") else value
                writer.add_tensor(f"blk.{layer}.{ours}.weight", value)
    return writer


def decoder_settings(vocabulary):
    return dict(
        vocab_size=vocabulary,
        hidden_size=WIDTH,
        intermediate_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=1,
        head_dim=HALF,
        max_position_embeddings=CONTEXT * 4,
        rms_norm_eps=1e-6,
        rope_theta=10000.0,
        tie_word_embeddings=True,
        attention_bias=False,
    )


def qwen3_reranker():
    """Qwen3-Reranker: the rows of yes and no of the output matrix, quantised, and a template."""
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
    tokenizer, tokens, merges = byte_level(specials)
    model = random(Qwen3ForCausalLM(Qwen3Config(**decoder_settings(len(tokens)))), 1)
    yes, no = (tokens.index(word) for word in ("yes", "no"))
    rows = array(model.lm_head.weight)[[yes, no]]
    quantised = gguf.quantize(rows, gguf.GGMLQuantizationType.Q8_0)
    rows = gguf.dequantize(quantised, gguf.GGMLQuantizationType.Q8_0)
    scores = []
    for prompt, response in PAIRS:
        text = RERANK.replace("{query}", prompt).replace("{document}", response)
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        with torch.no_grad():
            last = model.model(torch.tensor([ids])).last_hidden_state[0, -1]
        scores.append((ids, float(array(last) @ (rows[0] - rows[1]))))

    def extra(writer):
        add_byte_level(writer, tokens, merges, specials, "<|im_end|>")
        templates = {"default": CHATML, "rerank": RERANK}
        writer.add_chat_template([{"name": n, "template": t} for n, t in templates.items()])
        writer.add_pooling_type(gguf.PoolingType.RANK)
        writer.add_classifier_output_labels(["yes", "no"])

    writer = decoder(OUT / "qwen3-reranker.gguf", "qwen3", model.model, extra)
    kind = gguf.GGMLQuantizationType.Q8_0
    writer.add_tensor("cls.output.weight", quantised, raw_dtype=kind)
    write(writer)
    return {"qwen3-reranker": scores}


def internlm2_reward():
    """InternLM2-Reward: v_head on the reward token, which ends the text; the same mathematics as a
    Llama's. The head is in a folder, and inside a GGUF that llama.cpp cannot load."""
    specials = ["</s>", "<|im_start|>", "<|im_end|>", "<|reward|>"]
    tokenizer, tokens, merges = byte_level(specials)
    model = random(LlamaModel(LlamaConfig(**decoder_settings(len(tokens)))), 2)
    v_head = torch.randn(1, WIDTH) * 0.1
    scores = []
    for prompt, response in PAIRS:
        ids = tokenizer.encode(chat(prompt, response), add_special_tokens=False).ids
        ids.append(tokens.index("<|reward|>"))
        with torch.no_grad():
            last = model(torch.tensor([ids])).last_hidden_state[0, -1]
        scores.append((ids, float(last @ v_head[0])))

    def extra(writer):
        add_byte_level(writer, tokens, merges, specials, "</s>")
        writer.add_chat_template(CHATML)

    inside = decoder(OUT / "internlm2-reward.gguf", "llama", model, extra)
    inside.add_tensor("v_head.weight", array(v_head))
    write(inside)
    folder = OUT / "internlm2-reward"
    folder.mkdir(exist_ok=True)
    # The rest of the model is not read.
    save_file(
        {"model.norm.weight": model.norm.weight.detach().clone(), "v_head.weight": v_head},
        folder / "model.safetensors",
    )
    reward = tokens.index("<|reward|>")
    describe(
        folder,
        {"architectures": ["InternLM2ForRewardModel"], "reward_token_id": reward},
        {"chat_template": CHATML, "added_tokens_decoder": {str(reward): {"content": "<|reward|>"}}},
    )
    return {"internlm2-reward": scores}


def skywork():
    """Skywork-Reward: a Qwen3 with score.weight, in the last of two shards."""
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer, tokens, merges = byte_level(specials)
    settings = decoder_settings(len(tokens)) | {"num_labels": 1, "pad_token_id": len(tokens) - 3}
    model = random(Qwen3ForSequenceClassification(Qwen3Config(**settings)), 3)
    small(model.score)
    # It is published in half precision.
    model.score.weight.data = model.score.weight.data.to(torch.bfloat16).to(torch.float32)
    scores = []
    for prompt, response in PAIRS:
        ids = tokenizer.encode(chat(prompt, response), add_special_tokens=False).ids
        with torch.no_grad():
            scores.append((ids, float(model(torch.tensor([ids])).logits[0, 0])))

    def extra(writer):
        add_byte_level(writer, tokens, merges, specials, "<|im_end|>")
        writer.add_chat_template(CHATML)

    write(decoder(OUT / "skywork.gguf", "qwen3", model.model, extra))
    folder = OUT / "skywork"
    folder.mkdir(exist_ok=True)
    state = {k: v.detach().clone().to(torch.bfloat16) for k, v in model.state_dict().items()}
    # The model itself need not be there.
    kept = {"model.norm.weight": state["model.norm.weight"]}, {
        "score.weight": state["score.weight"]
    }
    weight_map = {}
    for number, part in enumerate(kept, 1):
        file = f"model-{number:05}-of-00002.safetensors"
        save_file(part, folder / file)
        weight_map |= {name: file for name in part}
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")
    describe(folder, {"architectures": ["Qwen3ForSequenceClassification"]}, {})
    (folder / "chat_template.jinja").write_text(CHATML)
    return {"skywork": scores}


def describe(folder, config, tokenizer):
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer, indent=1) + "\n")


# Encoders.


def encoder(path, prefix, state, types):
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_name(f"tiny {path.stem}")
    writer.add_block_count(LAYERS)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_file_type(0)
    writer.add_pooling_type(gguf.PoolingType.RANK)
    writer.add_classifier_output_labels(["LABEL_0"])
    embeddings = f"{prefix}.embeddings."
    writer.add_tensor("token_embd.weight", array(state[embeddings + "word_embeddings.weight"]))
    positions = array(state[embeddings + "position_embeddings.weight"])
    writer.add_tensor("position_embd.weight", positions[-CONTEXT:])
    token_types = array(state[embeddings + "token_type_embeddings.weight"])
    assert token_types.shape[0] == types
    writer.add_tensor("token_types.weight", token_types)
    names = {
        "attention.self.query": "attn_q",
        "attention.self.key": "attn_k",
        "attention.self.value": "attn_v",
        "attention.output.dense": "attn_output",
        "attention.output.LayerNorm": "attn_output_norm",
        "intermediate.dense": "ffn_up",
        "output.dense": "ffn_down",
        "output.LayerNorm": "layer_output_norm",
    }
    for part in ("weight", "bias"):
        writer.add_tensor(f"token_embd_norm.{part}", array(state[embeddings + f"LayerNorm.{part}"]))
        for layer in range(LAYERS):
            for theirs, ours in names.items():
                value = state[f"{prefix}.encoder.layer.{layer}.{theirs}.{part}"]
                writer.add_tensor(f"blk.{layer}.{ours}.{part}", array(value))
    return writer


def encoder_settings(vocabulary, types, positions):
    return dict(
        vocab_size=vocabulary,
        hidden_size=WIDTH,
        intermediate_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        max_position_embeddings=positions,
        type_vocab_size=types,
        layer_norm_eps=1e-12,
        num_labels=1,
        hidden_act="gelu",
    )


def bert():
    """A BERT cross-encoder: as converted, without its pooler, and its own files."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = ["cat", "moon", "animal"]
    pieces = special + list(LETTERS) + ["##" + c for c in LETTERS] + words
    tokenizer = Tokenizer(models.WordPiece({t: i for i, t in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    model = BertForSequenceClassification(BertConfig(**encoder_settings(len(pieces), 2, CONTEXT)))
    random(model, 4)
    small(model.classifier)
    state = model.state_dict()
    with_pooler, without = [], []
    for prompt, response in PAIRS:
        encoded = tokenizer.encode(prompt, response)
        ids, types = (torch.tensor([each]) for each in (encoded.ids, encoded.type_ids))
        with torch.no_grad():
            with_pooler.append((encoded.ids, float(model(ids, token_type_ids=types).logits)))
            first = model.bert(ids, token_type_ids=types).last_hidden_state[:, 0]
            without.append((encoded.ids, float(model.classifier(first))))
    writer = encoder(OUT / "bert.gguf", "bert", state, 2)
    # As convert_hf_to_gguf.py spells them.
    spelled = [t[2:] if t.startswith("##") else t if t in special else "▁" + t for t in pieces]
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(spelled)
    writer.add_token_types(
        [gguf.TokenType.CONTROL] * 5 + [gguf.TokenType.NORMAL] * (len(pieces) - 5)
    )
    writer.add_token_type_count(2)
    for name, index in (("pad", 0), ("unk", 1), ("bos", 2), ("sep", 3), ("mask", 4)):
        getattr(writer, f"add_{name}_token_id")(index)
    writer.add_tensor("cls.output.weight", array(state["classifier.weight"]))
    writer.add_tensor("cls.output.bias", array(state["classifier.bias"]))
    write(writer)
    folder = OUT / "bert"
    folder.mkdir(exist_ok=True)
    names = [
        "bert.pooler.dense.weight",
        "bert.pooler.dense.bias",
        "classifier.weight",
        "classifier.bias",
    ]
    save_file({name: state[name].clone() for name in names}, folder / "model.safetensors")
    describe(folder, {"architectures": ["BertForSequenceClassification"], "model_type": "bert"}, {})
    return {"bert": without, "bert-with-pooler": with_pooler}


def xlm_roberta():
    """An XLM-RoBERTa cross-encoder, complete as converted."""
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    pieces = (
        special + ["▁"] + list(LETTERS) + ["▁" + c for c in LETTERS] + ["▁cat", "▁moon", "▁the"]
    )
    scores = [0.0] * 4 + [-2.0 - 0.01 * i for i in range(len(pieces) - 4)]
    scores[-3:] = [-1.0, -1.1, -1.2]
    tokenizer = Tokenizer(models.Unigram(list(zip(pieces, scores)), unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    tokenizer.add_special_tokens(special)
    settings = encoder_settings(len(pieces), 1, CONTEXT + 2) | {"pad_token_id": 1}
    model = random(XLMRobertaForSequenceClassification(XLMRobertaConfig(**settings)), 5)
    small(model.classifier.out_proj)
    state = model.state_dict()
    found = []
    for prompt, response in PAIRS:
        ids = tokenizer.encode(prompt, response).ids
        with torch.no_grad():
            found.append((ids, float(model(torch.tensor([ids])).logits)))
    writer = encoder(OUT / "xlm-roberta.gguf", "roberta", state, 1)
    writer.add_tokenizer_model("t5")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(pieces)
    writer.add_token_scores(scores)
    kinds = [gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.UNKNOWN]
    writer.add_token_types(kinds + [gguf.TokenType.NORMAL] * (len(pieces) - 4))
    writer.add_add_space_prefix(True)
    writer.add_token_type_count(1)
    writer.add_remove_extra_whitespaces(True)
    for name, index in (("bos", 0), ("eos", 2), ("unk", 3), ("sep", 2), ("pad", 1)):
        getattr(writer, f"add_{name}_token_id")(index)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(True)
    for ours, theirs in (("cls", "dense"), ("cls.output", "out_proj")):
        for part in ("weight", "bias"):
            writer.add_tensor(f"{ours}.{part}", array(state[f"classifier.{theirs}.{part}"]))
    write(writer)
    return {"xlm-roberta": found}


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    expected = {}
    for make in (qwen3_reranker, internlm2_reward, skywork, bert, xlm_roberta):
        expected |= make()
    cases = {
        name: [
            {"prompt": prompt, "response": response, "tokens": ids, "score": score}
            for (prompt, response), (ids, score) in zip(PAIRS, scores)
        ]
        for name, scores in expected.items()
    }
    lines = [
        f" {json.dumps(name)}: [\n" + ",\n".join("  " + json.dumps(c) for c in each) + "\n ]"
        for name, each in cases.items()
    ]
    (OUT / "expected.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
