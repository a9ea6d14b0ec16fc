/** What identifies a run, so that a checkpoint is never continued as another one. */
import { createHash } from 'node:crypto';
import type { StepManifest } from '../../passes/targets/manifest.js';
import type { Dataset } from '../data/dataset.js';
import { digestBytes } from '../digest.js';
import type { Fingerprint } from './checkpoint.js';
import type { ScheduleConfig } from './schedule.js';

export interface RunIdentity {
  readonly manifest: StepManifest;
  readonly data: Dataset;
  readonly batchSize: number;
  readonly dropLast: boolean;
  readonly shuffle: boolean;
  readonly seed: number;
  readonly schedule: ScheduleConfig;
}

export function fingerprintOf(identity: RunIdentity): Fingerprint {
  const { manifest, data, batchSize, dropLast, shuffle, seed, schedule } = identity;
  return {
    graphs: digestBytes(JSON.stringify(manifest)),
    data: digestData(data),
    'batch size': String(batchSize),
    'drop-last setting': String(dropLast),
    'shuffle setting': String(shuffle),
    seed: String(seed),
    'learning-rate schedule': `${schedule.id} ${schedule.learningRate}, warm-up ${schedule.warmupSteps}, ${schedule.totalSteps} steps`,
  };
}

/** Digest of all examples: names, shapes and values. */
function digestData(data: Dataset): string {
  const hash = createHash('sha256');
  for (let i = 0; i < data.length; i++)
    for (const [name, { dims, values }] of data.example(i).tensors) {
      hash.update(`${JSON.stringify(name)}${dims.join(',')}:`);
      hash.update(new Uint8Array(Float64Array.from(values).buffer));
    }
  return `sha256:${hash.digest('hex')}`;
}
