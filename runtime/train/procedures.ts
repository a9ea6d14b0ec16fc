/** Runs what methods do between optimizer steps, and keeps what they remember. */
import type { Method } from '../../passes/methods/contract/method.js';
import type { ProcedureParam } from '../../passes/methods/contract/procedure.js';
import { type PlannedProcedure, proceduresOf } from '../../passes/procedures.js';
import type { TrainArtifacts } from '../artifacts.js';
import { type HostTensor, numbersOf, tensorOfNumbers } from '../host-tensor.js';
import type { ResidentParams } from './stepper.js';

type Trained = Pick<TrainArtifacts, 'record' | 'manifest'>;

interface Running extends PlannedProcedure {
  readonly state: Map<string, Float32Array>;
}

export class Procedures {
  readonly #total: number;
  readonly #running: readonly Running[];

  /** `total` is the number of steps of the run. Throws what a procedure has against it. */
  constructor({ record, manifest }: Trained, methods: readonly Method[], total: number) {
    this.#total = total;
    // Parameters that the loss does not depend on are in no graph, and stay as they are.
    const trained = new Set(manifest.params.map(({ key }) => key));
    this.#running = proceduresOf(record, methods).map((planned) => ({
      ...planned,
      params: planned.params.filter(({ param }) => trained.has(param.key)),
      state: new Map(),
    }));
    for (const { procedure } of this.#running) procedure.begin?.(total);
  }

  /** Keys of the parameters whose gradients are read. */
  get watched(): string[] {
    return this.#running.flatMap(gradientKeys);
  }

  /** Called after optimizer step `step`, from 1; changes the parameters that procedures write. */
  async afterStep(step: number, resident: ResidentParams): Promise<void> {
    for (const running of this.#running) await this.#run(running, step, resident);
  }

  /** What procedures remember, by `<entry>/<name>`. */
  state(): Map<string, HostTensor> {
    return new Map(
      this.#running.flatMap(({ entry, state }) =>
        [...state].map(([name, numbers]): [string, HostTensor] => [
          `${entry}/${name}`,
          tensorOfNumbers('float32', [numbers.length], numbers),
        ]),
      ),
    );
  }

  restore(stored: ReadonlyMap<string, HostTensor>): void {
    for (const { entry, state } of this.#running) {
      state.clear();
      const prefix = `${entry}/`;
      for (const [name, tensor] of stored)
        if (name.startsWith(prefix))
          state.set(name.slice(prefix.length), Float32Array.from(numbersOf(tensor)));
    }
  }

  async #run(running: Running, step: number, resident: ResidentParams): Promise<void> {
    const { procedure, params, state } = running;
    const values = await resident.read(params.map(({ param }) => param.key));
    const gradients = await resident.gradients(gradientKeys(running));
    const given = params.map(({ site, role, param }): ProcedureParam => {
      const { key, shape } = param;
      const data = Float32Array.from(numbersOf(values.get(key) as HostTensor));
      return { key, site, role, shape, data, gradient: gradients.get(key) };
    });
    const before = new Map(given.map(({ key, data }) => [key, data.slice()]));
    procedure.afterStep({ step, total: this.#total, params: given }, state);
    const written = given.filter(
      ({ key, role, data }) =>
        procedure.writes.includes(role) && differs(data, before.get(key) as Float32Array),
    );
    if (written.length === 0) return;
    const changed = written.map(({ key, data }): [string, HostTensor] => {
      const { dtype, dims } = values.get(key) as HostTensor;
      return [key, tensorOfNumbers(dtype, dims, data)];
    });
    await resident.write(new Map(changed));
  }
}

function gradientKeys({ procedure, params }: PlannedProcedure): string[] {
  return params.filter(({ role }) => procedure.gradients.includes(role)).map(({ param }) => param.key);
}

function differs(a: Float32Array, b: Float32Array): boolean {
  return a.some((value, i) => !Object.is(value, b[i]));
}
