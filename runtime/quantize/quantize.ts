/** Quantises a model file: integers in place of float weights, one weight in memory at a time. */
import { FORMATS, type FormatId, type QuantizeSettings } from '../../passes/quantize/formats.js';
import { quantizeSites } from '../../passes/quantize/quantize.js';
import { findSites } from '../../passes/sites/index.js';
import type { LinearSite } from '../../passes/sites/site.js';
import { selectSites, type Targeting } from '../../passes/sites/targeting.js';
import { cloneModel } from '../../src/clone.js';
import { fail } from '../../src/errors.js';
import type { Model } from '../../src/model.js';
import { readModel, type WriteOptions, type WrittenFile, writeModel } from '../../src/onnx/index.js';
import { type VerifyOptions, type VerifyReport, verify } from '../verify.js';
import { writeOptionsFor } from '../write-options.js';
import { QuantizingWeight, type WeightAccuracy } from './quantizing.js';

export interface QuantizeOptions {
  readonly model: string | Model;
  /** Path of the quantised model; absent for a plan. */
  readonly out?: string;
  readonly force?: boolean;
  /** Default `int4`. */
  readonly format?: FormatId;
  /** Numbers that share a scale: 16, 32, 64, 128 or 256; default: the format's own. */
  readonly blockSize?: number;
  /** Without zero points. Default true. */
  readonly symmetric?: boolean;
  /** Which linears; default `all-linear`, which leaves output heads alone. */
  readonly targeting?: Targeting;
  /** Also run both models on the same inputs; the tolerance is 1 (of the scale of an output) unless given. */
  readonly verify?: boolean | VerifyOptions;
  readonly paths?: ReadonlyMap<string, string>;
  /** Where weights go; default: as in the model, but into one file of their own where that lies elsewhere. */
  readonly write?: Pick<WriteOptions, 'externalData' | 'weights'>;
}

export interface QuantizedTensorReport {
  readonly name: string;
  readonly sites: readonly string[];
  readonly dtype: string;
  readonly dims: readonly number[];
  /** Bytes before, and of codes, scales and zero points together. */
  readonly bytes: readonly [before: number, after: number];
  /** Absent in a plan. */
  readonly accuracy?: WeightAccuracy;
}

export interface QuantizeReport {
  readonly out: string | undefined;
  /** Itself the last; empty for a plan. */
  readonly files: readonly WrittenFile[];
  readonly format: FormatId;
  readonly blockSize: number | null;
  readonly symmetric: boolean;
  /** Where the operator runs. */
  readonly runs: string;
  readonly tensors: readonly QuantizedTensorReport[];
  readonly skipped: readonly { readonly path: string; readonly reason: string }[];
  readonly verification?: VerifyReport;
}

/** How much a model bears is for its user to say; past this the outputs have nothing in common. */
const TOLERANCE = 1;

/**
 * Quantises the weights of linears. The model that is given stays as it is.
 * @throws E_NO_MATCH for targets, E_USAGE for settings that the format lacks, E_UNSUPPORTED when no weight can be stored so.
 */
export async function quantize(options: QuantizeOptions): Promise<QuantizeReport> {
  const base = typeof options.model === 'string' ? readModel(options.model) : options.model;
  const id = options.format ?? 'int4';
  const format = FORMATS[id];
  const settings: QuantizeSettings = {
    blockSize: options.blockSize ?? format.defaultBlock,
    symmetric: options.symmetric ?? true,
  };
  const { out } = options;
  const write = out === undefined ? undefined : writeOptionsFor(base, { ...options, out });
  const { model } = cloneModel(base);
  const found = findSites(model, options.paths === undefined ? {} : { paths: options.paths });
  const linears = found.filter((site): site is LinearSite => site.kind === 'linear');
  const selected = selectSites(found, options.targeting ?? { targets: 'all-linear' }).map(({ site }) => site);
  const sites = linears.filter((site) => selected.includes(site));
  const weights = new Map<unknown, QuantizingWeight>();
  const { quantized, skipped } = quantizeSites(model, sites, format, settings, (source) => {
    const weight = new QuantizingWeight(source);
    weights.set(source, weight);
    return weight;
  });
  const first = skipped[0];
  if (quantized.length === 0)
    fail('E_UNSUPPORTED', {
      message: `No weight can be quantised: ${first?.reason ?? 'no linear was selected'}`,
      ...(first === undefined ? {} : { where: first.path }),
      remedy: 'Choose other targets or another format',
    });
  const files = out === undefined ? [] : (await writeModel(model, out, write)).files;
  const tensors = quantized.map(({ paths, source, parts, matrix }): QuantizedTensorReport => {
    const { accuracy } = weights.get(source) ?? {};
    const after = [parts.codes, parts.scales, parts.zeroPoints].reduce(
      (sum, value) => sum + (value?.tensor?.data.byteLength ?? 0),
      0,
    );
    return {
      name: source.value.label,
      sites: paths,
      dtype: matrix.label,
      dims: [source.inDim, source.outDim],
      bytes: [source.tensor.data.byteLength, after],
      ...(accuracy === undefined ? {} : { accuracy }),
    };
  });
  const verification = await verified(base, options);
  return {
    out,
    files,
    format: id,
    blockSize: format.blocks.length === 0 ? null : settings.blockSize,
    symmetric: settings.symmetric,
    runs: format.runs,
    tensors,
    skipped,
    ...(verification === undefined ? {} : { verification }),
  };
}

async function verified(
  base: Model,
  { verify: asked, out }: QuantizeOptions,
): Promise<VerifyReport | undefined> {
  if (asked === undefined || asked === false || out === undefined) return undefined;
  return verify(base, out, { tolerance: TOLERANCE, ...(asked === true ? {} : asked) });
}
