/** Runs fold formulas in ONNX Runtime. Formulas of equal text share a session, so a model needs as many as it has weight shapes. */

import type { Model } from '../../src/model.js';
import { encodeModel } from '../../src/onnx/index.js';
import { printModel } from '../../src/text/index.js';
import { shapeOf } from '../../src/value-type.js';
import type { HostTensor } from '../host-tensor.js';
import { type Session, SessionHost, type SessionOptions } from '../session.js';
import { Lanes } from './lanes.js';
import { LowRankKernel } from './low-rank/kernel.js';
import { factorsOf } from './low-rank/split.js';
import { HandedPieces } from './pieces.js';

export class FormulaEvaluator {
  /** Buffers for blocks. */
  readonly lanes = new Lanes();
  /** Pieces that the writer has. */
  readonly handed = new HandedPieces();
  #started: SessionHost | undefined;
  readonly #sessions = new Map<string, Promise<Session>>();
  readonly #factors = new Map<string, Model | undefined>();
  readonly #ofFormula = new WeakMap<Model, Promise<Session>>();
  #kernel: { readonly created: LowRankKernel | undefined } | undefined;
  readonly #where: Pick<SessionOptions, 'ep' | 'cpuFallback'>;

  /** @param where Execution provider of the formulas; default: the CPU. */
  constructor(where: Pick<SessionOptions, 'ep' | 'cpuFallback'> = {}) {
    this.#where = where;
  }

  /** Its thread starts when it is first asked for, like those of the kernel: many folds need one of them. */
  get #host(): SessionHost {
    this.#started ??= new SessionHost();
    return this.#started;
  }

  /** For updates of low rank; undefined where formulas are to be computed on a device, or Node.js cannot run it. */
  get kernel(): LowRankKernel | undefined {
    this.#kernel ??= {
      created: (this.#where.ep ?? 'cpu') === 'cpu' ? LowRankKernel.create() : undefined,
    };
    return this.#kernel.created;
  }

  /** The first output of a formula. Input buffers are given away: they are empty afterwards. */
  async run(
    formula: Model,
    feeds: Readonly<Record<string, HostTensor>>,
    resident: Readonly<Record<string, string>> = {},
  ): Promise<HostTensor> {
    const results = await this.runAll(formula, feeds, resident);
    const output = results[formula.graph.outputs[0]?.name ?? ''];
    if (output === undefined) throw new Error('A fold formula returned nothing');
    return output;
  }

  /**
   * All outputs of a formula by name. Input buffers are given away: they are empty afterwards.
   * @param resident inputs that were put under these keys
   */
  async runAll(
    formula: Model,
    feeds: Readonly<Record<string, HostTensor>>,
    resident: Readonly<Record<string, string>> = {},
  ): Promise<Readonly<Record<string, HostTensor>>> {
    let opened = this.#ofFormula.get(formula);
    if (opened === undefined) {
      opened = this.#session(formula);
      this.#ofFormula.set(formula, opened);
    }
    return (await opened).runWith({ feeds, transfer: true, resident });
  }

  /** The formula of the factors alone, where it is an update of low rank: one for formulas of equal text. */
  factorsOf(formula: Model): Model | undefined {
    const key = textOf(formula);
    if (!this.#factors.has(key)) this.#factors.set(key, factorsOf(formula));
    return this.#factors.get(key);
  }

  /** Keeps tensors for evaluations to come, under keys. */
  put(tensors: Readonly<Record<string, HostTensor>>): Promise<void> {
    return this.#host.put(tensors);
  }

  drop(keys: readonly string[]): Promise<void> {
    return this.#host.drop(keys);
  }

  async close(): Promise<void> {
    await Promise.all([this.#started?.close(), this.#kernel?.created?.close()]);
  }

  #session(formula: Model): Promise<Session> {
    const key = textOf(formula);
    let session = this.#sessions.get(key);
    if (session === undefined) {
      session = this.#open(formula);
      this.#sessions.set(key, session);
    }
    return session;
  }

  /**
   * Formulas of whole tensors run once per weight: an arena would only hold memory. Those of blocks run a thousand times
   * on small ones, and an arena saves the system's calls. Repacking never pays, and threads that spin between runs would
   * take the processor from reading and writing.
   */
  async #open(formula: Model): Promise<Session> {
    const options = {
      prepack: false,
      memPattern: false,
      arena: inBlocks(formula),
      spin: false,
      ...this.#where,
    };
    return this.#host.createSession(await encodeModel(formula), options);
  }
}

/** Formulas that differ in a constant are different, however long the constant is. */
function textOf(formula: Model): string {
  return printModel(formula, { payload: () => true });
}

/** Whether a formula takes any number of rows. */
function inBlocks({ graph }: Model): boolean {
  return graph.outputs.some(({ value }) => typeof shapeOf(value)?.[0] === 'string');
}
