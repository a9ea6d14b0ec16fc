/** Merging of inferred and declared types. */
import { sameDim } from '../dims.js';
import type { Value } from '../graph.js';
import { type Dim, formatType, type Shape, type ValueType } from '../types.js';

/** A place where the model contradicts itself. */
export interface Diagnostic {
  readonly where: string;
  readonly message: string;
}

/**
 * Types that inference wrote, with what the file had declared there before. Keyed by the type object, so that a copied
 * value (a cloned model) knows too.
 */
const written = new WeakMap<ValueType, { readonly declared: ValueType | undefined }>();

/** The type that the file declares for a value, also after inference wrote another one. */
function declaredType(value: Value): ValueType | undefined {
  const record = value.type === undefined ? undefined : written.get(value.type);
  return record === undefined ? value.type : record.declared;
}

type Verdict = { readonly type: ValueType; readonly conflict: boolean };

function mergeDim(inferred: Dim, declared: Dim): { dim: Dim; conflict: boolean } {
  if (inferred === null) return { dim: declared, conflict: false };
  if (declared === null || inferred === declared) return { dim: inferred, conflict: false };
  if (typeof inferred === 'number') return { dim: inferred, conflict: typeof declared === 'number' };
  // A declared number says more than a symbol; a symbol made up here says less than any of the file's.
  if (typeof declared === 'number' || inferred.startsWith('_d') || sameDim(inferred, declared))
    return { dim: declared, conflict: false };
  return { dim: inferred, conflict: false };
}

function mergeShapes(
  inferred: Shape | null,
  declared: Shape | null,
): { shape: Shape | null; conflict: boolean } {
  if (inferred === null || declared === null) return { shape: inferred ?? declared, conflict: false };
  if (inferred.length !== declared.length) return { shape: inferred, conflict: true };
  let conflict = false;
  const shape = inferred.map((dim, axis) => {
    const merged = mergeDim(dim, declared[axis] ?? null);
    conflict ||= merged.conflict;
    return merged.dim;
  });
  return { shape, conflict };
}

function mergeTypes(inferred: ValueType, declared: ValueType): Verdict {
  if (inferred.kind !== declared.kind) return { type: inferred, conflict: true };
  if (inferred.kind === 'tensor' && declared.kind === 'tensor') {
    if (inferred.dtype !== declared.dtype) return { type: inferred, conflict: true };
    const { shape, conflict } = mergeShapes(inferred.shape, declared.shape);
    return { type: equalShapes(shape, declared.shape) ? declared : { ...inferred, shape }, conflict };
  }
  if (
    (inferred.kind === 'sequence' && declared.kind === 'sequence') ||
    (inferred.kind === 'optional' && declared.kind === 'optional')
  ) {
    const { type, conflict } = mergeTypes(inferred.element, declared.element);
    return { type: { ...inferred, element: type }, conflict };
  }
  return { type: declared, conflict: false };
}

function equalShapes(a: Shape | null, b: Shape | null): boolean {
  if (a === null || b === null) return a === b;
  return a.length === b.length && a.every((dim, axis) => dim === b[axis]);
}

/** Writes an inferred type on a value, merged with what the file declares. */
export function adopt(value: Value, inferred: ValueType | undefined, diagnostics: Diagnostic[]): void {
  const declared = declaredType(value);
  if (inferred === undefined) {
    value.type = declared;
    return;
  }
  const { type, conflict } =
    declared === undefined ? { type: inferred, conflict: false } : mergeTypes(inferred, declared);
  if (conflict)
    diagnostics.push({
      where: value.label,
      message: `'${value.label}' is declared as ${formatType(declared)}, but is ${formatType(inferred)}`,
    });
  if (type === declared) {
    value.type = declared;
    return;
  }
  // An object of its own: rules hand types of inputs on.
  const own = { ...type };
  written.set(own, { declared });
  value.type = own;
}

function joinShapes(a: Shape | null, b: Shape | null): Shape | null {
  if (a === null || b === null || a.length !== b.length) return null;
  return a.map((dim, axis) => (sameDim(dim, b[axis] ?? null) ? dim : null));
}

/** The most specific type that covers both. */
export function joinTypes(a: ValueType | undefined, b: ValueType | undefined): ValueType | undefined {
  if (a === undefined || b === undefined || a.kind !== b.kind) return undefined;
  if (a.kind === 'tensor' && b.kind === 'tensor')
    return a.dtype === b.dtype ? { ...a, shape: joinShapes(a.shape, b.shape) } : undefined;
  if ((a.kind === 'sequence' && b.kind === 'sequence') || (a.kind === 'optional' && b.kind === 'optional')) {
    const element = joinTypes(a.element, b.element);
    return element === undefined ? undefined : { ...a, element };
  }
  return formatType(a) === formatType(b) ? a : undefined;
}
