"""Step time and peak memory of torch + peft on the benchmark's BERT classifier: the peer of the step figures.

Prints one JSON object. Needs torch, transformers and peft; the benchmark skips this peer where they are absent.
"""

import json
import resource
import sys
import time

import torch
from peft import LoraConfig, get_peft_model
from transformers import BertConfig, BertForSequenceClassification


def median(values):
    return sorted(values)[len(values) // 2]


def main():
    spec = json.loads(sys.argv[1])
    torch.set_num_threads(spec["threads"])
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=spec["vocab"],
        hidden_size=spec["hidden"],
        num_hidden_layers=spec["layers"],
        num_attention_heads=spec["heads"],
        intermediate_size=spec["intermediate"],
        num_labels=spec["labels"],
    )
    model = BertForSequenceClassification(config)
    batch, sequence = spec["batch"], spec["sequence"]
    ids = torch.randint(0, spec["vocab"], (batch, sequence))
    mask = torch.ones_like(ids)
    labels = torch.randint(0, spec["labels"], (batch,))

    model.eval()
    forward = []
    with torch.no_grad():
        for _ in range(spec["steps"]):
            start = time.perf_counter()
            model(input_ids=ids, attention_mask=mask)
            forward.append(time.perf_counter() - start)

    # Dropout off on both sides: the step graph of this comparison has none.
    lora = LoraConfig(r=spec["rank"], lora_alpha=16, target_modules=["query", "value"], lora_dropout=0.0)
    tuned = get_peft_model(model, lora)
    tuned.eval()
    trainable = [p for p in tuned.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=1e-4)
    step = []
    for _ in range(spec["steps"] + 2):
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(tuned(input_ids=ids, attention_mask=mask).logits, labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trainable, 1.0)
        optimizer.step()
        step.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"forwardMs": median(forward[1:]) * 1e3, "stepMs": median(step[2:]) * 1e3, "peakMiB": peak / 1024}))


if __name__ == "__main__":
    main()
