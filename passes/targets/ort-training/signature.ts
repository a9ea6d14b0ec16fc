/** Inputs of the two models in the order that the runtime goes by: the caller's, parameters, buffers, the reset flag. */
import { Value } from '../../../src/graph.js';
import type { Model } from '../../../src/model.js';
import { tensorType, type ValueType } from '../../../src/types.js';
import type { AdapterParam } from '../../adapter-record.js';
import { tensorOf } from '../describe.js';
import type { BatchInput } from '../manifest.js';
import type { PlacedLabel } from '../objective.js';
import { checkUserInput, DROPOUT_SEED, freeNames } from './names.js';

/** An input that the caller feeds. */
export interface UserInput {
  readonly name: string;
  readonly type: ValueType | undefined;
  readonly label: PlacedLabel | undefined;
}

/** Inputs of the adapted model that one of the graphs reads, in its order, then labels. */
export function userInputs(
  adapted: Model,
  graphs: readonly Model[],
  labels: readonly PlacedLabel[],
): UserInput[] {
  const read = new Set(
    graphs.flatMap(({ graph }) => graph.inputs.filter(({ uses }) => uses.size > 0).map(({ name }) => name)),
  );
  const users = [
    ...adapted.graph.inputs.flatMap(({ name, type, tensor }) =>
      name === undefined || tensor !== undefined || !read.has(name) ? [] : [{ name, type, label: undefined }],
    ),
    ...labels.map((label) => ({
      name: label.value.name ?? label.input.name,
      type: label.value.type,
      label,
    })),
  ];
  for (const { name } of users) checkUserInput(name);
  return users;
}

export function describeUsers(users: readonly UserInput[]): BatchInput[] {
  return users.map(({ name, type, label }) => ({
    name,
    ...tensorOf(type),
    role: label === undefined ? 'input' : 'label',
    ...(label?.input.padding === undefined ? {} : { padding: label.input.padding }),
  }));
}

export interface Parameters {
  readonly trained: readonly AdapterParam[];
  /** Names of lifted weights of the base. */
  readonly frozen: readonly string[];
  readonly dropoutSeed: boolean;
}

/**
 * Gives a model its inputs: parameters under their keys. Every input stays, used or not, because the runtime feeds both
 * models the same parameters in the order of the training model.
 * @param own What else the runtime knows by name: buffers and the flag behind the parameters, and values inside.
 */
export function arrangeInputs(
  model: Model,
  users: readonly UserInput[],
  { trained, frozen, dropoutSeed }: Parameters,
  own: { readonly inputs: readonly Value[]; readonly values: readonly Value[] },
): void {
  const { graph } = model;
  const known = new Map(graph.inputs.map((value) => [value.name, value]));
  const input = (name: string, type: ValueType | undefined): Value =>
    known.get(name) ?? new Value({ name, ...(type === undefined ? {} : { type }) });
  const parameters = [
    ...trained.map((param) => {
      const value = input(param.name, tensorType('float32', param.shape));
      value.name = param.key;
      return value;
    }),
    ...frozen.map((name) => input(name, undefined)),
    ...(dropoutSeed ? [input(DROPOUT_SEED, tensorType('float32', [1]))] : []),
  ];
  const all = [...users.map(({ name, type }) => input(name, type)), ...parameters, ...own.inputs];
  graph.inputs.splice(0, graph.inputs.length, ...all);
  const kept = new Set<Value>([...parameters, ...own.inputs, ...own.values]);
  freeNames(model, new Set([...kept].flatMap(({ name }) => name ?? [])), kept);
}
