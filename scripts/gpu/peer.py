"""The same training step in torch and peft, in bfloat16 on a GPU and float32 elsewhere: prints one line of JSON."""

import json
import resource
import statistics
import sys
import time

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

task = json.loads(sys.argv[1])
shape, batch, sequence = task["shape"], task["batch"], task["sequence"]
device = "cuda" if torch.cuda.is_available() else "cpu"
dtype = torch.bfloat16 if device == "cuda" else torch.float32
torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=shape["vocab"],
    hidden_size=shape["hidden"],
    intermediate_size=shape["intermediate"],
    num_hidden_layers=shape["layers"],
    num_attention_heads=shape["heads"],
    num_key_value_heads=shape["heads"],
    tie_word_embeddings=True,
    use_cache=False,
)
base = LlamaForCausalLM(config).to(device=device, dtype=dtype)
lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
model = get_peft_model(base, lora).train()
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=task["lr"])
compute = torch.compile(model) if task["mode"] == "compile" else model
ids = (7 * torch.arange(batch * sequence).reshape(batch, sequence) % shape["vocab"]).to(device)


def step() -> float:
    optimizer.zero_grad(set_to_none=True)
    loss = compute(input_ids=ids, labels=ids).loss
    loss.backward()
    optimizer.step()
    return loss.item()


times = []
for number in range(task["warmUp"] + task["steps"]):
    start = time.perf_counter()
    value = step()
    if number >= task["warmUp"]:
        times.append(1000 * (time.perf_counter() - start))
milliseconds = statistics.median(times)
print(
    json.dumps(
        {
            "ms": milliseconds,
            "tokensPerSecond": 1000 * batch * sequence / milliseconds,
            "hostMiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "loss": value,
            "dtype": str(dtype).removeprefix("torch."),
        }
    )
)
