/** Segments of slash-separated scope names, as the TorchScript exporter and ONNX Runtime's model builder write them. */

/** `/mlp/mlp.0/MatMul` → `mlp.0`; undefined for names without scopes. */
export function pathOfScopedName(name: string | undefined): string | undefined {
  if (name === undefined || !name.includes('/')) return undefined;
  const segments = name.split('/').filter((segment) => segment !== '');
  // The last segment is the op; a single segment carries no scope.
  segments.pop();
  return segments.length === 0 ? undefined : joinScopes(segments);
}

/**
 * Containers join with a dot inside one segment and repeat their own name: `mlp`, `mlp.0` is the module `mlp.0`.
 * A second call of a module is a scope `name_1`.
 */
function joinScopes(segments: readonly string[]): string {
  const kept: string[] = [];
  for (const [i, segment] of segments.entries()) {
    const next = segments[i + 1];
    if (next?.startsWith(`${segment}.`)) continue;
    kept.push(segment);
  }
  return kept.join('.');
}
