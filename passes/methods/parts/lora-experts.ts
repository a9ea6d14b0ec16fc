/**
 * LoRA of parameters that are no modules (PEFT's `target_parameters`): experts in one tensor [experts, ·, ·] have one pair
 * of factors, [r · experts, ·] and [·, r · experts]. Here every expert is a linear, `<module>.<parameter>.<expert>`.
 */
import { fail } from '../../../src/errors.js';
import type { Tensor } from '../../../src/tensor.js';
import { numberOf, type PeftFile, type PeftTarget } from '../contract/peft-format.js';

const FACTOR = /^(?:base_model\.model\.)?(.+?)((?:\.base_layer)*)\.lora_([AB])\.weight$/;

/** The factors of a parameter, and how many wrappers are around its own. */
interface Wrapped {
  readonly depth: number;
  readonly keys: string[];
  A?: Tensor;
  B?: Tensor;
}

/** The tensors with a pair of factors at every expert. Throws E_INVALID_DATA, E_NO_MATCH. */
export async function factorsByExpert(file: PeftFile): Promise<ReadonlyMap<string, Tensor>> {
  const targets = file.config.target_parameters;
  if (!Array.isArray(targets) || targets.length === 0) return file.tensors;
  const placed = [...wrappersOf(file)].flatMap(([path, levels]) => {
    const names = targets.flatMap((target) => nameAt(String(target), path));
    return names.length === 0 ? [] : placedLevels(path, names, levels, file);
  });
  refuseTwice(placed, file);
  const arranged = new Map(file.tensors);
  for (const { level } of placed) for (const key of level.keys) arranged.delete(key);
  for (const one of placed)
    for (const [key, tensor] of ofExperts(one, directionIn(one, placed, file), file))
      arranged.set(key, tensor);
  return arranged;
}

/** Factors of a parameter of the graph. */
interface Placed {
  /** Of the module in PEFT. */
  readonly path: string;
  readonly target: PeftTarget;
  readonly level: Wrapped;
}

/** Whether A reads inputs, or what PEFT took for inputs; `either` where both have the same size. */
type Direction = 'forward' | 'swapped' | 'either';

/** Factors by path of the module; wrappers of several parameters of one module stand around each other. */
function wrappersOf({ tensors }: PeftFile): Map<string, Wrapped[]> {
  const found = new Map<string, Wrapped[]>();
  for (const [key, tensor] of tensors) {
    const [, path, around = '', factor] = FACTOR.exec(key) ?? [];
    if (path === undefined) continue;
    const levels = found.get(path) ?? [];
    found.set(path, levels);
    const depth = around.length;
    let level = levels.find((one) => one.depth === depth);
    if (level === undefined) {
      level = { depth, keys: [] };
      levels.push(level);
    }
    level.keys.push(key);
    level[factor as 'A' | 'B'] = tensor;
  }
  return found;
}

/** Name of the parameter that a target means at a module. */
function nameAt(target: string, path: string): string[] {
  const at = target.lastIndexOf('.');
  const [parent, name] = [target.slice(0, Math.max(at, 0)), target.slice(at + 1)];
  return parent === '' || path === parent || path.endsWith(`.${parent}`) ? [name] : [];
}

/** Which wrapper is of which parameter: sizes say so. */
function placedLevels(
  path: string,
  names: readonly string[],
  levels: readonly Wrapped[],
  file: PeftFile,
): Placed[] {
  const own = names.map((name) => targetOf(path, name, file));
  const nameless = own.every((target) => target === undefined);
  const ways = permutations(levels).flatMap((order) => {
    const pairs = order.flatMap((level, i): Placed[] => {
      const target = nameless ? targetBySizes(path, level, file) : own[i];
      return target === undefined || directionOf(target, level) === undefined
        ? []
        : [{ path, target, level }];
    });
    return pairs.length === own.length && order.length === own.length ? [pairs] : [];
  });
  const [first] = ways;
  // Sizes choose the tensors of the graph there, whatever order the names are tried in.
  if (first !== undefined && (ways.length === 1 || nameless)) return first;
  return ways.length === 0
    ? noTensors(path, names, file)
    : fail('E_NO_MATCH', {
        message: `The parameters ${names.join(', ')} of '${path}' have the same sizes: nothing says whose factors are whose`,
        where: file.path,
        remedy: 'Merge it in Python (merge_and_unload) and export that model instead',
      });
}

function noTensors(path: string, names: readonly string[], { targets, path: where }: PeftFile): never {
  const stacks = targets.filter(({ stacked }) => stacked);
  const shown = stacks.map(
    ({ path, count, inDim, outDim }) => `'${path}' (${count} of ${inDim} to ${outDim})`,
  );
  const example = stacks[0]?.path ?? 'path in peft-compile inspect';
  return fail('E_NO_MATCH', {
    message: `The factors at '${path}' fit no parameters ${names.join(', ')} of the model. Experts in one tensor are ${shown.length === 0 ? 'nowhere in it' : shown.join(', ')}`,
    where,
    remedy: `Check that this is the base of the adapter; or say which is which: --map map.json with {"${path}.${names[0]}": "${example}"}`,
  });
}

/** No tensor is that of two modules: then the order of the graph is not that of the layers. */
function refuseTwice(placed: readonly Placed[], { path: where }: PeftFile): void {
  const owners = new Map<PeftTarget, string>();
  for (const { path, target } of placed) {
    const other = owners.get(target);
    if (other !== undefined)
      fail('E_NO_MATCH', {
        message: `'${other}' and '${path}' may both be '${target.path}' of the model`,
        where,
        remedy:
          'Say which is which: --map map.json with {"parameter in PEFT": "path in peft-compile inspect"}',
      });
    owners.set(target, path);
  }
}

/** The tensor without a name that factors fit, of one in every layer; undefined where several do. */
function targetBySizes(path: string, level: Wrapped, { targets, layers }: PeftFile): PeftTarget | undefined {
  const fitting = targets.filter((one) => one.stacked && !one.named && directionOf(one, level) !== undefined);
  if (fitting.length === 1) return fitting[0];
  const numbers = path.split('.').filter((part) => /^\d+$/.test(part));
  return numbers.length === 1 && fitting.length === layers ? fitting[Number(numbers[0])] : undefined;
}

/** The tensor of the graph that is a parameter: by path, or by as much of its end as is unique. */
function targetOf(path: string, name: string, { targets, mapped }: PeftFile): PeftTarget | undefined {
  const wanted = mapped(name === 'weight' ? path : `${path}.${name}`);
  const exact = targets.find((one) => one.path === wanted);
  if (exact !== undefined) return exact;
  const parts = wanted.split('.');
  for (let from = 0; from < parts.length - 1; from++) {
    const end = parts.slice(from).join('.');
    const found = targets.filter((one) => one.path === end || one.path.endsWith(`.${end}`));
    if (found.length > 0) return found.length === 1 ? found[0] : undefined;
  }
  return undefined;
}

/** By sizes; undefined where they fit in neither way. */
function directionOf({ inDim, outDim, count }: PeftTarget, { A, B }: Wrapped): Direction | undefined {
  const [rows = 0, from] = A?.dims ?? [];
  const [to, columns] = B?.dims ?? [];
  if (rows !== columns || rows % count !== 0) return undefined;
  const forward = from === inDim && to === outDim;
  const swapped = count > 1 && from === outDim && to === inDim;
  if (forward && swapped) return 'either';
  return forward ? 'forward' : swapped ? 'swapped' : undefined;
}

/**
 * Which size of a tensor [experts, ·, ·] PEFT took for the inputs depends on its version and on what the model says of
 * itself. Of a square one, the others of its layout tell.
 */
function directionIn(
  { path, target, level }: Placed,
  all: readonly Placed[],
  { path: where }: PeftFile,
): Direction {
  const own = directionOf(target, level);
  if (own !== undefined && own !== 'either') return own;
  const others = all
    .filter((one) => one.target.count > 1 && one.target.outFirst === target.outFirst)
    .map((one) => directionOf(one.target, one.level));
  return (
    others.find((direction) => direction !== undefined && direction !== 'either') ??
    fail('E_UNSUPPORTED', {
      message: `The experts at '${path}' are square: nothing says which of their factors reads the inputs`,
      where,
      remedy: 'Merge it in Python (merge_and_unload) and export that model instead',
    })
  );
}

function* ofExperts(
  { path, target, level }: Placed,
  direction: Direction,
  { config, moved, path: where }: PeftFile,
): Generator<[string, Tensor]> {
  const { count, inDim, outDim } = target;
  const [A, B] = [level.A as Tensor, level.B as Tensor];
  const rank = (A.dims[0] ?? 0) / count;
  if (rank !== numberOf(config, 'r', 8))
    fail('E_INVALID_DATA', {
      message: `The factors at '${path}' are of ${count} experts of rank ${rank}, and its configuration says ${numberOf(config, 'r', 8)}`,
      where,
      remedy: 'The adapter is of another model, or its configuration was edited',
    });
  const swapped = direction === 'swapped';
  for (let expert = 0; expert < count; expert++) {
    // A holds ranks by expert, B experts by rank.
    const ofA = (r: number, i: number) => (expert * rank + r) * (A.dims[1] ?? 0) + i;
    const ofB = (o: number, r: number) => o * rank * count + r * count + expert;
    const module = `base_model.model.${target.path}${target.stacked ? `.${expert}` : ''}`;
    yield [
      `${module}.lora_A.weight`,
      moved(swapped ? B : A, [rank, inDim], (at) => {
        const [r, i] = [Math.floor(at / inDim), at % inDim];
        return swapped ? ofB(i, r) : ofA(r, i);
      }),
    ];
    yield [
      `${module}.lora_B.weight`,
      moved(swapped ? A : B, [outDim, rank], (at) => {
        const [o, r] = [Math.floor(at / rank), at % rank];
        return swapped ? ofA(r, o) : ofB(o, r);
      }),
    ];
  }
}

function permutations<T>(all: readonly T[]): T[][] {
  if (all.length <= 1) return [[...all]];
  return all.flatMap((first, i) =>
    permutations(all.filter((_, j) => j !== i)).map((rest) => [first, ...rest]),
  );
}
