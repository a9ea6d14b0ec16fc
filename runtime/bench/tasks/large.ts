/** A model too large to be held twice: written, copied by the system, and folded in a process that watches its memory. */
import { execFile } from 'node:child_process';
import { rm } from 'node:fs/promises';
import { promisify } from 'node:util';
import { z } from 'zod';
import { Graph, Value } from '../../../src/graph.js';
import { initTensor, normal } from '../../../src/initializer.js';
import { Model } from '../../../src/model.js';
import { encodeModel, readModel, writeModel } from '../../../src/onnx/index.js';
import { Builder } from '../../../src/ops/builder.js';
import type { Tensor } from '../../../src/tensor.js';
import { tensorType } from '../../../src/types.js';
import { fold } from '../../fold/fold.js';
import { tensorOfNumbers } from '../../host-tensor.js';
import { writePeft } from '../../peft/write.js';
import { SessionHost } from '../../session.js';
import { llamaDecoder } from '../models/llama.js';
import { transformerShape } from '../models/transformer.js';
import { residentMiB } from '../peak.js';
import { type BenchTask, timed } from '../task.js';
import { withLora } from './lora.js';

const run = promisify(execFile);

/** A decoder with its weights in a file beside it, and a folder of PEFT with a LoRA on all linear modules. */
export const writeLlama: BenchTask = async (input) => {
  const given = z
    .object({
      shape: transformerShape,
      dtype: z.enum(['float32', 'float16', 'bfloat16']),
      out: z.string(),
      adapter: z.string(),
      rank: z.int(),
    })
    .parse(input);
  await writeModel(llamaDecoder(given.shape, given.dtype), given.out, { externalData: 'file' });
  const { record } = withLora(readModel(given.out), given.rank, 'all-linear');
  const tensors = new Map<string, Tensor>();
  for (const site of record.sites)
    for (const { key, shape: dims, dtype } of Object.values(site.params))
      tensors.set(key, initTensor(normal(0.02), dtype, dims, 1, key));
  await writePeft({ record, tensors, digest: '' }, given.adapter, { task: 'CAUSAL_LM' });
  return { sites: record.sites.length };
};

/**
 * Brings the pages of files into the system's cache, or asks the system to forget them, as GNU dd does; a system that
 * cannot leaves them as they are.
 */
export const cachePages: BenchTask = async (input) => {
  const { files, cold } = z.object({ files: z.array(z.string()), cold: z.boolean() }).parse(input);
  for (const file of files)
    if (cold) await run('dd', [`if=${file}`, 'iflag=nocache', 'count=0', 'status=none']).catch(() => {});
    else await run('cp', [file, '/dev/null']);
  return {};
};

/** `cp` and then `sync` of every copy: `copyMs`. */
export const systemCopy: BenchTask = async (input) => {
  const { files } = z.object({ files: z.array(z.object({ from: z.string(), to: z.string() })) }).parse(input);
  const { ms } = await timed(async () => {
    for (const { from, to } of files) {
      await run('cp', [from, to]);
      await run('sync', [to]);
    }
  });
  return { copyMs: ms };
};

/**
 * Folds in this process, unchanged weights left in the base's file or all of them in one of the merged model: `foldMs`; `runtimeMiB`, resident memory with ONNX Runtime loaded and one small session that ran;
 * the peak that the process reports is after the fold.
 */
export const largeFold: BenchTask = async (input) => {
  const { externalData, ...given } = z
    .object({
      model: z.string(),
      adapter: z.string(),
      out: z.string(),
      externalData: z.enum(['keep', 'file']),
    })
    .parse(input);
  await smallSession();
  const runtimeMiB = residentMiB();
  const { ms, value } = await timed(() => fold({ ...given, write: { externalData } }));
  await rm(given.out, { force: true });
  await rm(`${given.out}.data`, { force: true });
  return { runtimeMiB, foldMs: ms, tensors: value.tensors.length };
};

async function smallSession(): Promise<void> {
  const model = new Model(new Graph());
  model.irVersion = 8;
  model.opsets.set('', 17);
  const b = new Builder(model);
  const x = model.graph.addInput(new Value({ name: 'x', type: tensorType('float32', [1]) }));
  const y = b.op.Add(x, x);
  for (const node of b.nodes) model.graph.append(node);
  model.graph.addOutput('y', y);
  const host = new SessionHost();
  const session = await host.createSession(await encodeModel(model));
  await session.runWith({ feeds: { x: tensorOfNumbers('float32', [1], [1]) } });
  await host.close();
}
