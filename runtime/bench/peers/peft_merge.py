"""Folding as it is done without peft-compile: load in torch, merge_and_unload, export to ONNX again.

Mode `prepare` writes the checkpoint and the adapter; mode `merge` is what is measured. Prints one JSON object.
"""

import json
import os
import sys
import time

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from process_memory import peak_mib, resident_mib
from transformers import BertConfig, BertForSequenceClassification


def prepare(spec):
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=spec["vocab"],
        hidden_size=spec["hidden"],
        num_hidden_layers=spec["layers"],
        num_attention_heads=spec["heads"],
        intermediate_size=spec["intermediate"],
        max_position_embeddings=spec["positions"],
        num_labels=spec["labels"],
    )
    model = BertForSequenceClassification(config)
    model.save_pretrained(os.path.join(spec["checkpoint"], "base"))
    lora = LoraConfig(r=spec["rank"], lora_alpha=16, target_modules=spec["targets"])
    tuned = get_peft_model(model, lora)
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.02)
    tuned.save_pretrained(os.path.join(spec["checkpoint"], "adapter"))
    return {}


def merge(spec):
    idle = resident_mib()
    start = time.perf_counter()
    base = BertForSequenceClassification.from_pretrained(os.path.join(spec["checkpoint"], "base"))
    tuned = PeftModel.from_pretrained(base, os.path.join(spec["checkpoint"], "adapter"))
    merged = tuned.merge_and_unload().eval()
    loaded = time.perf_counter()
    os.makedirs(spec["out"], exist_ok=True)
    path = os.path.join(spec["out"], "merged.onnx")
    ids = torch.zeros(2, 16, dtype=torch.int64)
    names = ["input_ids", "attention_mask"]
    axes = {"dynamic_axes": {name: {0: "batch", 1: "sequence"} for name in names}}
    if spec["dynamo"]:
        dims = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence")}
        axes = {"dynamic_shapes": {name: dims for name in names}}
    torch.onnx.export(
        merged,
        (),
        path,
        kwargs={"input_ids": ids, "attention_mask": torch.ones_like(ids)},
        input_names=names,
        output_names=["logits"],
        dynamo=spec["dynamo"],
        verbose=False,
        **axes,
    )
    written = sum(os.path.getsize(os.path.join(spec["out"], file)) for file in os.listdir(spec["out"]))
    return {
        "mergeMs": (loaded - start) * 1e3,
        "exportMs": (time.perf_counter() - loaded) * 1e3,
        "writtenMiB": written / 2**20,
        "idleMiB": idle,
    }


def main():
    spec = json.loads(sys.argv[1])
    torch.set_num_threads(spec["threads"])
    figures = {"prepare": prepare, "merge": merge}[spec["mode"]](spec)
    print(json.dumps({**figures, "peakMiB": peak_mib()}))


if __name__ == "__main__":
    main()
