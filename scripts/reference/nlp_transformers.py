#!/usr/bin/env python3
"""Compares the expected values of the nlp service's small random models with Hugging Face's transformers, so that the
reference in nlp.py is itself checked.

usage: nlp_transformers.py [DATA]     (needs torch, transformers; DATA: the crate's tests/data)

Prints the largest difference of a probability for each model, and fails above 1e-6.
"""
import json
import pathlib
import sys

import torch
from safetensors.torch import load_file
from transformers import (
    AutoConfig, AutoModelForSequenceClassification, AutoModelForTokenClassification, PreTrainedTokenizerFast)

HERE = pathlib.Path(__file__).resolve().parents[2] / "containers/ai-services/nlp/tests/data"
MODELS = {
    "bert-tokens": AutoModelForTokenClassification,
    "distilbert-tokens": AutoModelForTokenClassification,
    "bert-pairs": AutoModelForSequenceClassification,
    "roberta-labels": AutoModelForSequenceClassification,
    "modernbert-labels": AutoModelForSequenceClassification,
}


def load(folder, kind):
    weights = load_file(folder / "model.safetensors")
    old = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
    for before, now in old.items():
        weights = {name.replace(before, now): tensor.float() for name, tensor in weights.items()}
    config = AutoConfig.from_pretrained(folder)
    kinds = [tensor.shape[0] for name, tensor in weights.items() if name.endswith("token_type_embeddings.weight")]
    if kinds:
        config.type_vocab_size = kinds[0]
    model = kind.from_config(config, attn_implementation="eager").eval()
    model.load_state_dict(weights)
    return model, PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))


def difference(data, name, kind, expected):
    model, tokenizer = load(data / name, kind)
    texts, worst, compared = expected["texts"], 0.0, 0
    inputs = [(text,) for text in texts] if name != "bert-pairs" else [(texts[0], text) for text in texts[1:]]
    rows = expected["outputs"][name]
    assert len(inputs) == len(rows), name
    for given, row in zip(inputs, rows):
        encoded = tokenizer(*given, return_tensors="pt", return_token_type_ids=name == "bert-pairs")
        # The small vocabulary has its unknown word where RoBERTa's has the padding, which transformers does not count.
        if name == "roberta-labels" and (encoded["input_ids"] == model.config.pad_token_id).any():
            continue
        compared += 1
        with torch.no_grad():
            logits = model(**encoded).logits[0]
        found = torch.sigmoid(logits) if name == "bert-pairs" else torch.softmax(logits, -1)
        row = torch.tensor(row).flatten()
        assert found.numel() == row.numel(), (name, given)
        worst = max(worst, (found.flatten() - row).abs().max().item())
    assert compared > 1, name
    return worst


def main():
    data = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    expected = json.loads((data / "small.json").read_text())
    worst = {name: difference(data, name, kind, expected) for name, kind in MODELS.items()}
    for name, value in worst.items():
        print(f"{name:18} {value:.1e}")
    sys.exit(max(worst.values()) > 1e-6)


if __name__ == "__main__":
    main()
