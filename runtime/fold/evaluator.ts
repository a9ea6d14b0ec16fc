/** Runs fold formulas in ONNX Runtime. Formulas of equal text share a session, so a model needs as many as it has weight shapes. */

import type { Model } from '../../src/model.js';
import { encodeModel } from '../../src/onnx/index.js';
import { printModel } from '../../src/text/index.js';
import type { HostTensor } from '../host-tensor.js';
import { type Session, SessionHost } from '../session.js';

export class FormulaEvaluator {
  readonly #host = new SessionHost();
  readonly #sessions = new Map<string, Promise<Session>>();
  readonly #ofFormula = new WeakMap<Model, Promise<Session>>();

  /** The single output of a formula. Input buffers are given away: they are empty afterwards. */
  async run(formula: Model, feeds: Readonly<Record<string, HostTensor>>): Promise<HostTensor> {
    let opened = this.#ofFormula.get(formula);
    if (opened === undefined) {
      opened = this.#session(formula);
      this.#ofFormula.set(formula, opened);
    }
    const session = await opened;
    const outputs = await session.runWith({ feeds, transfer: true });
    const output = outputs[formula.graph.outputs[0]?.name ?? ''];
    if (output === undefined) throw new Error('A fold formula returned nothing');
    return output;
  }

  close(): Promise<void> {
    return this.#host.close();
  }

  #session(formula: Model): Promise<Session> {
    // Formulas that differ in a constant are different, however long the constant is.
    const key = printModel(formula, { payload: () => true });
    let session = this.#sessions.get(key);
    if (session === undefined) {
      session = this.#open(formula);
      this.#sessions.set(key, session);
    }
    return session;
  }

  /**
   * Formulas run once per weight: repacking or arenas would only hold memory, and threads that spin between runs would
   * take the processor from reading and writing.
   */
  async #open(formula: Model): Promise<Session> {
    const options = { prepack: false, memPattern: false, arena: false, spin: false };
    return this.#host.createSession(await encodeModel(formula), options);
  }
}
