/** `emit --target adapted`: its options and its report. */
import type { Command } from 'commander';
import { DIALECTS } from '../../../passes/targets/dialects.js';
import { SCALE_PLACES, type ScalePlace, type ServingInput } from '../../../passes/targets/serving.js';
import { writeOnnxAdapter } from '../../../runtime/export/onnx-adapter/write.js';
import { attach } from '../../../runtime/library/attach.js';
import { emit } from '../../../runtime/library/emit.js';
import { serve } from '../../../runtime/library/serving.js';
import { fail } from '../../errors.js';
import { writeModel } from '../../onnx/index.js';
import { formatType, tensorType } from '../../types.js';
import { choice } from '../choice.js';
import { formatCount, print, printJson, warn } from '../output.js';
import { type CommonFlags, type Emission, outOf } from './common.js';

export interface AdaptedFlags extends CommonFlags {
  readonly adapterIo: 'weights' | 'inputs';
  readonly adapter?: string;
  readonly anyBase?: boolean;
  readonly names: string;
  readonly scale: ScalePlace;
  readonly rank: 'free' | 'fixed';
  readonly dtype?: 'float32' | 'float16';
  readonly none?: string;
  readonly optional?: boolean;
}

export function addAdaptedOptions(command: Command): Command {
  return command
    .option('-a, --adapter <file>', 'the trained adapter to put into the base model')
    .option('--any-base', 'take an adapter that was trained on other weights')
    .addOption(
      choice('--adapter-io <mode>', 'adapters as weights, or as required inputs that serve many adapters', [
        'weights',
        'inputs',
      ]).default('weights'),
    );
}

/** Options of adapters that are inputs. */
export function addAdapterInputOptions(command: Command): Command {
  return command
    .addOption(
      choice(
        '--names <dialect>',
        'names of adapter inputs, as export --format onnx_adapter has them',
        DIALECTS.map(({ id }) => id),
      ).default('own'),
    )
    .addOption(
      choice(
        '--scale <place>',
        'alpha/r is part of the B that is fed, an input, or in the graph',
        SCALE_PLACES,
      ).default('factor'),
    )
    .addOption(
      choice('--rank <mode>', 'adapters of any rank, 0 for none, or of the ranks that --adapter has', [
        'free',
        'fixed',
      ]).default('free'),
    )
    .addOption(
      choice('--dtype <type>', 'element type of the inputs; default: that of the model', [
        'float32',
        'float16',
      ]),
    )
    .option(
      '--optional',
      'no adapter is their default (C, C++, C#, Java, Python, ORT GenAI; JavaScript ignores what is fed then)',
    )
    .option('--none <file>', 'also write the .onnx_adapter that stands for no adapter');
}

export async function emitForInference({ model, flags, methods }: Emission<AdaptedFlags>): Promise<void> {
  const out = outOf(flags);
  const { adapterIo, names, scale, rank, dtype, adapter, none: nonePath, optional = false } = flags;
  const files = [out];
  let fed: readonly ServingInput[] | undefined;
  const options = {
    names,
    scale,
    rank,
    ...(dtype === undefined ? {} : { dtype }),
    methods,
    out,
    force: flags.force ?? false,
    write: { weights: flags.weights },
  };
  const anyBase = flags.anyBase ?? false;
  if (adapter === undefined) refuseWithoutAdapter(flags);
  if (adapterIo === 'inputs' && adapter !== undefined) {
    const { out: _out, write, force, ...serving } = options;
    const { model: graph, none, inputs } = await serve({ model, adapter, anyBase, optional, ...serving });
    // Whatever is wrong with the second file is said before the first is written.
    if (nonePath !== undefined) {
      if (typeof none === 'string') fail('E_UNSUPPORTED', { message: none, where: nonePath });
      await writeOnnxAdapter(nonePath, none, { force });
      files.push(nonePath);
    } else if (typeof none === 'string') warn(`note: ${none}`);
    await writeModel(graph, out, { ...write, force });
    fed = inputs;
  } else {
    if (adapter !== undefined) await attach(model, adapter, { methods, anyBase });
    await emit(model, { target: 'adapted', adapterIo, ...options });
  }
  if (flags.json === true)
    return printJson({
      target: flags.target,
      files,
      ...(fed === undefined ? {} : { inputs: fed.map(({ name, dtype, shape }) => ({ name, dtype, shape })) }),
    });
  const [first] = fed ?? [];
  if (fed !== undefined && first !== undefined)
    print(
      `${formatCount(fed.length)} ${optional ? 'optional' : 'required'} inputs of adapters, such as ${first.name} ${formatType(tensorType(first.dtype, first.shape))}`,
    );
  print(`written to ${files.join(', ')}`);
}

function refuseWithoutAdapter(flags: AdaptedFlags): void {
  const needy = { none: '--none', optional: '--optional', anyBase: '--any-base' } as const;
  for (const key of ['none', 'optional', 'anyBase'] as const)
    if (flags[key] !== undefined)
      fail('E_USAGE', {
        message: `${needy[key]} goes with --adapter`,
        remedy: 'Give the base model and, as --adapter, a trained adapter',
      });
}
