#!/usr/bin/env node
/**
 * Tokens per second and peak memory of LoRA training (r = 16 on every linear layer of a Llama-shaped decoder with random
 * weights), through every execution provider that works here, against torch and peft in one run. Without a GPU it runs
 * on the CPU at a small size and says so.
 *
 *   npm run build && node scripts/gpu/bench.mjs [--size tiny|1b] [--ep cpu,webgpu,cuda] [--steps 10] [--batch 4]
 *     [--sequence 512] [--precision float32,bfloat16,float16] [--python python3 | --no-torch] [--json file]
 */
import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { insert } from '../../dist/passes/insert/insert.js';
import { emitStep } from '../../dist/passes/targets/step.js';
import { artifactsInMemory } from '../../dist/runtime/artifacts.js';
import { llamaDecoder } from '../../dist/runtime/bench/models/llama.js';
import { peakMiB } from '../../dist/runtime/bench/peak.js';
import { PROVIDERS } from '../../dist/runtime/ep/index.js';
import { precisionFor } from '../../dist/runtime/ep/precision.js';
import { computes } from '../../dist/runtime/ep/probe.js';
import { tensorOfNumbers } from '../../dist/runtime/host-tensor.js';
import { Stepper } from '../../dist/runtime/train/stepper.js';
import { readModel, writeModel } from '../../dist/src/onnx/index.js';

/** The widths of Llama 3.2 1B, with as many key heads as query heads. */
const SIZES = {
  tiny: { layers: 2, hidden: 64, heads: 4, intermediate: 160, vocab: 200 },
  '1b': { layers: 16, hidden: 2048, heads: 32, intermediate: 8192, vocab: 32000 },
};
const WARM_UP = 2;
const LEARNING_RATE = 1e-4;

const { values: flags } = parseArgs({
  options: {
    size: { type: 'string' },
    ep: { type: 'string' },
    steps: { type: 'string', default: '10' },
    batch: { type: 'string', default: '4' },
    sequence: { type: 'string' },
    precision: { type: 'string' },
    python: { type: 'string', default: 'python3' },
    'no-torch': { type: 'boolean', default: false },
    json: { type: 'string' },
    child: { type: 'string' },
  },
});

/** One run of our step graph in a process of its own; prints a line of JSON. */
async function child({ path, ep, precision, steps, batch, sequence, vocab }) {
  const model = readModel(path);
  insert(model, { method: 'lora', config: { rank: 16, alpha: 32 }, targeting: { targets: 'all-linear' } });
  const artifacts = await artifactsInMemory(
    emitStep(model, {
      loss: 'causal-lm',
      ...(precision === 'float32' ? {} : { precision: precisionFor(precision, ep) }),
    }),
    model,
  );
  const stepper = new Stepper(artifacts, { ep });
  await stepper.load(artifacts.initial);
  const feeds = () =>
    Object.fromEntries(
      artifacts.manifest.batch.map(({ name, dtype }) => {
        const numbers = Array.from({ length: batch * sequence }, (_, i) =>
          /mask/.test(name) ? 1 : (7 * i) % vocab,
        );
        return [name, tensorOfNumbers(dtype, [batch, sequence], numbers)];
      }),
    );
  const times = [];
  let loss = Number.NaN;
  for (let step = 1; step <= WARM_UP + steps; step++) {
    const start = performance.now();
    ({ loss } = await stepper.step([feeds()], { lr: LEARNING_RATE, step, seeds: [step] }));
    if (step > WARM_UP) times.push(performance.now() - start);
  }
  await stepper.close();
  times.sort((a, b) => a - b);
  const ms = times[times.length >> 1];
  console.log(
    JSON.stringify({ ms, tokensPerSecond: (1000 * batch * sequence) / ms, hostMiB: peakMiB(), loss }),
  );
}

/** bfloat16, in which torch runs, where the provider has it. */
function halfOf(ep) {
  return PROVIDERS.get(ep)?.withoutHalf?.bfloat16 === undefined ? 'float16' : 'bfloat16';
}

/** Largest memory of the first NVIDIA GPU while a process runs, over what was in use before; null without one. */
function deviceMemory() {
  const used = () => {
    const { stdout, status } = spawnSync('nvidia-smi', [
      '--query-gpu=memory.used',
      '--format=csv,noheader,nounits',
    ]);
    return status === 0 ? Number(String(stdout).split('\n')[0]) : null;
  };
  const before = used();
  let peak = before;
  const timer = before === null ? undefined : setInterval(() => (peak = Math.max(peak, used() ?? 0)), 250);
  return () => {
    clearInterval(timer);
    return before === null ? null : peak - before;
  };
}

/** Runs a command that prints a line of JSON. */
async function measure(label, command, args) {
  const stop = deviceMemory();
  const lines = await new Promise((resolve) => {
    let [out, err] = ['', ''];
    const running = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    running.stdout.on('data', (text) => (out += text));
    running.stderr.on('data', (text) => (err += text));
    running.on('error', (error) => resolve({ error: String(error) }));
    running.on('close', (code) =>
      resolve(code === 0 ? { out } : { error: err.trim().split('\n').at(-1) ?? `status ${code}` }),
    );
  });
  const deviceMiB = stop();
  if (lines.error !== undefined) return { label, error: lines.error.slice(0, 300) };
  return { label, ...JSON.parse(lines.out.trim().split('\n').at(-1)), deviceMiB };
}

async function main() {
  const gpu = spawnSync('nvidia-smi', ['--query-gpu=name,driver_version', '--format=csv,noheader']);
  const device = gpu.status === 0 ? String(gpu.stdout).trim() : undefined;
  const size = flags.size ?? (device === undefined ? 'tiny' : '1b');
  const shape = SIZES[size];
  if (shape === undefined) throw new Error(`--size is one of ${Object.keys(SIZES).join(', ')}`);
  const [steps, batch] = [Number(flags.steps), Number(flags.batch)];
  const sequence = Number(flags.sequence ?? (size === 'tiny' ? 64 : 512));
  if (device === undefined)
    console.log(`No NVIDIA GPU here: the CPU at size '${size}', which says nothing about a GPU.`);
  else console.log(device);
  const wanted = flags.ep?.split(',') ?? (device === undefined ? ['cpu'] : ['webgpu', 'cuda']);
  const folder = mkdtempSync(join(tmpdir(), 'gpu-bench-'));
  const rows = [];
  try {
    const path = join(folder, 'model.onnx');
    await writeModel(llamaDecoder(shape), path, { externalData: 'file' });
    for (const ep of wanted)
      for (const precision of flags.precision?.split(',') ?? ['float32', halfOf(ep)]) {
        const label = `peft-compile, ${ep}`;
        const { ok, why } = await computes(
          PROVIDERS.get(ep),
          precision === 'float16' ? 'float16' : 'float32',
        );
        const task = JSON.stringify({ path, ep, precision, steps, batch, sequence, vocab: shape.vocab });
        const args = [fileURLToPath(import.meta.url), '--child', task];
        rows.push({
          ...(ok ? await measure(label, process.execPath, args) : { label, error: why }),
          dtype: precision,
        });
      }
    const peer = join(dirname(fileURLToPath(import.meta.url)), 'peer.py');
    for (const mode of flags['no-torch'] ? [] : ['eager', 'compile']) {
      const task = JSON.stringify({
        shape,
        mode,
        steps,
        batch,
        sequence,
        warmUp: WARM_UP,
        lr: LEARNING_RATE,
      });
      rows.push(await measure(`torch + peft, ${mode}`, flags.python, [peer, task]));
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
  console.log(`${size}: ${JSON.stringify(shape)}, batch ${batch} × ${sequence}, median of ${steps} steps`);
  for (const { label, error, ms, tokensPerSecond, hostMiB, deviceMiB, dtype = 'float32' } of rows)
    console.log(
      `${label.padEnd(24)} ${dtype.padEnd(9)} ${
        error ??
        `${tokensPerSecond.toFixed(0)} tokens/s, ${ms.toFixed(1)} ms a step, host ${hostMiB.toFixed(0)} MiB${deviceMiB === null ? '' : `, GPU ${deviceMiB} MiB`}`
      }`,
    );
  if (flags.json !== undefined)
    writeFileSync(
      flags.json,
      `${JSON.stringify({ device: device ?? null, size, shape, batch, sequence, steps, rows }, null, 2)}\n`,
    );
}

await (flags.child === undefined ? main() : child(JSON.parse(flags.child)));
