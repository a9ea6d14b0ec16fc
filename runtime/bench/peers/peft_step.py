"""Forward or step time and peak memory of torch + peft on the benchmark's BERT classifier.

Prints one JSON object. Needs torch, transformers and peft; the benchmark skips this peer where they are absent.
"""

import json
import sys
import time

import torch
from peft import LoraConfig, get_peft_model
from process_memory import peak_mib, resident_mib
from transformers import BertConfig, BertForSequenceClassification

WARMUP = 2


def median_ms(call, runs):
    times = []
    for run in range(WARMUP + runs):
        start = time.perf_counter()
        call()
        if run >= WARMUP:
            times.append(time.perf_counter() - start)
    return sorted(times)[(len(times) - 1) // 2] * 1e3


def main():
    spec = json.loads(sys.argv[1])
    idle = resident_mib()
    torch.set_num_threads(spec["threads"])
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
    # Dropout is off on both sides: the step graph of this comparison has none.
    model.eval()
    batch, sequence = spec["batch"], spec["sequence"]
    ids = torch.randint(0, spec["vocab"], (batch, sequence))
    mask = torch.ones_like(ids)
    labels = torch.arange(batch) % spec["labels"]

    if spec["mode"] == "forward":

        def forward():
            with torch.no_grad():
                model(input_ids=ids, attention_mask=mask)

        figures = {"forwardMs": median_ms(forward, spec["runs"])}
    else:
        lora = LoraConfig(r=spec["rank"], lora_alpha=16, target_modules=["query", "value"], lora_dropout=0.0)
        tuned = get_peft_model(model, lora)
        tuned.eval()
        trainable = [p for p in tuned.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trainable, lr=1e-4)

        def step():
            optimizer.zero_grad(set_to_none=True)
            logits = tuned(input_ids=ids, attention_mask=mask).logits
            loss = torch.nn.functional.cross_entropy(logits, labels)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trainable, 1.0)
            optimizer.step()
            loss.item()

        figures = {"stepMs": median_ms(step, spec["runs"]), "trainable": sum(p.numel() for p in trainable)}
    print(json.dumps({**figures, "idleMiB": idle, "peakMiB": peak_mib()}))


if __name__ == "__main__":
    main()
