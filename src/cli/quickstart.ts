import { existsSync } from 'node:fs';
import { mkdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { Command } from 'commander';
import { attachAdapter, insert } from '../../passes/insert/insert.js';
import { emitStep } from '../../passes/targets/step.js';
import { modelTensors, readAdapter } from '../../runtime/adapter-file.js';
import { artifactsInMemory } from '../../runtime/artifacts.js';
import { loadTokenizer } from '../../runtime/data/tokenizer.js';
import { digestWeights } from '../../runtime/digest.js';
import { fold } from '../../runtime/fold/fold.js';
import { generate } from '../../runtime/generate.js';
import { measureLatency } from '../../runtime/latency.js';
import { createSession } from '../../runtime/session.js';
import { train } from '../../runtime/train/train.js';
import { fail } from '../errors.js';
import { readModel, writeModel } from '../onnx/index.js';
import pc from './colour.js';
import { interruptSignal } from './interrupt.js';
import { lossCurve } from './loss-curve.js';
import { formatBytes, formatCount, formatPercent, print, printJson } from './output.js';
import { packageFile } from './package-file.js';
import { table } from './table.js';
import { trainView } from './train-view.js';

interface QuickstartFlags {
  readonly out: string;
  readonly force?: boolean;
  readonly json?: boolean;
  readonly quiet?: boolean;
}

/** Settings that reach most of the gain within a minute on two cores. */
const SETTINGS = { rank: 8, alpha: 16, lr: 1e-2, steps: 120, batchSize: 8, length: 128 };

const PROMPT = 'It is a truth';

export function quickstartCommand(): Command {
  return new Command('quickstart')
    .summary('tune a small language model in under a minute, and fold it')
    .description(
      'The whole road on a small real model: a language model that was trained on Shakespeare learns Jane Austen through LoRA, and the adapter is folded back with proof.',
    )
    .option('-o, --out <folder>', 'where the files go', 'quickstart-out')
    .option('--force', 'replace an earlier quickstart')
    .option('--quiet', 'no report, only errors and warnings')
    .option('--json', 'print a JSON report')
    .action(run);
}

async function run(flags: QuickstartFlags): Promise<void> {
  const say = flags.json === true ? () => {} : print;
  const { out } = flags;
  if (existsSync(out)) {
    if (flags.force !== true)
      fail('E_EXISTS', {
        message: 'The output folder exists',
        where: out,
        remedy: 'Add --force, or give --out another folder',
      });
    await rm(out, { recursive: true });
  }
  await mkdir(out, { recursive: true });
  const base = packageFile('fixtures', 'quickstart', 'model.onnx');
  const tokenizer = loadTokenizer(packageFile('fixtures', 'quickstart', 'tokenizer.json'));
  const paths = {
    adapted: join(out, 'adapted.onnx'),
    unfolded: join(out, 'unfolded.onnx'),
    run: join(out, 'run'),
    merged: join(out, 'merged.onnx'),
  };

  say(pc.bold('1. insert LoRA into a language model that knows Shakespeare'));
  const model = readModel(base);
  const { rank, alpha } = SETTINGS;
  const report = insert(model, {
    method: 'lora',
    config: { rank, alpha },
    targeting: { targets: 'all-linear' },
    baseDigest: await digestWeights(model),
  });
  await writeModel(model, paths.adapted);
  say(
    `   ${formatCount(report.trainable)} trainable of ${formatCount(report.base)} weights (${formatPercent(report.trainable / report.base)}) in ${report.record.sites.length} modules`,
  );

  say(pc.bold('2. train it on Jane Austen'));
  const artifacts = await artifactsInMemory(
    emitStep(model, {
      loss: 'causal-lm',
      clip: 1,
      schedule: { id: 'cosine', learningRate: SETTINGS.lr, warmupSteps: 10 },
    }),
    model,
  );
  const view = trainView(flags.json === true || flags.quiet === true ? 'silent' : 'progress');
  const trained = await train({
    artifacts,
    data: packageFile('fixtures', 'quickstart', 'train.txt'),
    evalData: packageFile('fixtures', 'quickstart', 'validation.txt'),
    load: { tokenizer, maxLength: SETTINGS.length },
    out: paths.run,
    batchSize: SETTINGS.batchSize,
    maxSteps: SETTINGS.steps,
    evalFirst: true,
    onEvent: view.onEvent,
    signal: interruptSignal(),
  }).finally(() => view.close());
  const before = trained.evals[0]?.perplexity ?? Number.NaN;
  const after = trained.evals.at(-1)?.perplexity ?? Number.NaN;
  const adapterPath =
    trained.adapter ?? fail('E_INTERRUPTED', { message: 'The quickstart was interrupted', where: paths.run });
  const adapterBytes = (await stat(adapterPath)).size;
  say(lossCurve(trained.losses));
  say(
    `   perplexity on unseen Austen: ${pc.bold(before.toFixed(1))} before, ${pc.bold(after.toFixed(1))} after, in ${trained.seconds.toFixed(0)} s`,
  );
  say(
    `   adapter ${adapterPath}, ${formatBytes(adapterBytes)} (the model has ${formatBytes((await stat(base)).size)})`,
  );

  say(pc.bold('3. fold the adapter into the weights, with proof'));
  const folded = await fold({ model: base, adapter: adapterPath, out: paths.merged, verify: true });
  const { proof, verification } = folded;
  if (proof !== undefined)
    say(
      `   ${pc.green('proved')}: the merged graph is the base's, ${proof.nodes} nodes equal; ${proof.untouched} tensors equal byte for byte, ${folded.tensors.length} have new numbers`,
    );
  if (verification !== undefined)
    say(
      `   ${verification.pass ? pc.green('verified') : pc.red('differs')} against the unfolded model: worst difference ${verification.worst.relative.toExponential(1)} of output scale`,
    );

  say(pc.bold('4. what it costs to run'));
  const adapter = await readAdapter(adapterPath);
  const unfolded = readModel(base);
  attachAdapter(unfolded, adapter.record, await modelTensors(adapter));
  await writeModel(unfolded, paths.unfolded);
  const latency = await measureLatency(
    [
      { label: 'base', path: base },
      { label: 'unfolded', path: paths.unfolded },
      { label: 'folded', path: paths.merged },
    ],
    { sizes: { batch: 1, sequence: SETTINGS.length }, rounds: 31, session: { threads: 1 } },
  );
  say(
    table(
      ['   model', `ms, 1 × ${SETTINGS.length} tokens`, 'against base'],
      latency.map(({ label, ms, ratio }) => [`   ${label}`, ms.toFixed(2), `${ratio.toFixed(2)} ×`]),
      [1, 2],
    ),
  );

  say(pc.bold('5. what it writes'));
  const samples: Record<string, string> = {};
  for (const [label, path] of [
    ['base', base],
    ['folded', paths.merged],
  ] as const) {
    const session = await createSession(path, { threads: 1 });
    const text = await generate(session, tokenizer, { prompt: PROMPT, tokens: 48 });
    await session.release();
    samples[label] = text;
    say(`   ${pc.dim(label.padEnd(8))} ${text.replace(/\s+/g, ' ')}`);
  }
  if (flags.json === true) {
    const { trainable, base: total } = report;
    printJson({
      perplexity: { before, after },
      trainable,
      total,
      adapterBytes,
      seconds: trained.seconds,
      proof,
      verification,
      latency,
      samples,
      files: paths,
    });
    return;
  }
  print();
  print(`Look at ${paths.run} (adapter, log), ${paths.unfolded} and ${paths.merged}, e.g. with`);
  print(`  peft-compile inspect ${paths.adapted}`);
  print(`  peft-compile verify ${paths.unfolded} ${paths.merged}`);
}
