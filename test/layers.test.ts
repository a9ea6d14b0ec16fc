import { join, relative, sep } from 'node:path';
import { Project, type SourceFile } from 'ts-morph';
import { describe, expect, it } from 'vitest';

const root = join(import.meta.dirname, '..');
const project = new Project({
  tsConfigFilePath: join(root, 'tsconfig.build.json'),
  skipAddingFilesFromTsConfig: true,
});
project.addSourceFilesAtPaths(['src', 'passes', 'runtime'].map((layer) => join(root, layer, '**/*.ts')));

interface Import {
  readonly from: string;
  readonly to: string;
  readonly typeOnly: boolean;
}

const pathOf = (file: SourceFile): string => relative(root, file.getFilePath()).split(sep).join('/');

/** Imports and re-exports between files of the project. */
const imports: Import[] = project.getSourceFiles().flatMap((file) =>
  [...file.getImportDeclarations(), ...file.getExportDeclarations()].flatMap((declaration) => {
    const target = declaration.getModuleSpecifierSourceFile();
    if (target === undefined || target.isInNodeModules()) return [];
    const named =
      'getNamedImports' in declaration ? declaration.getNamedImports() : declaration.getNamedExports();
    const whole =
      'getNamedImports' in declaration
        ? declaration.getDefaultImport() !== undefined || declaration.getNamespaceImport() !== undefined
        : false;
    const typeOnly =
      declaration.isTypeOnly() || (!whole && named.length > 0 && named.every((name) => name.isTypeOnly()));
    return [{ from: pathOf(file), to: pathOf(target), typeOnly }];
  }),
);

/** Position of a file in the one direction: a file may import from its own layer and from those below. */
function layerOf(path: string): number {
  if (path.startsWith('src/cli/') || path === 'src/index.ts') return 3;
  if (path.startsWith('runtime/')) return 2;
  if (path.startsWith('passes/')) return 1;
  return 0;
}

/** Strongly connected components of more than one file (Tarjan). */
function cycles(edges: readonly Import[]): string[][] {
  const next = new Map<string, string[]>();
  for (const { from, to } of edges) next.set(from, [...(next.get(from) ?? []), to]);
  const index = new Map<string, number>();
  const low = new Map<string, number>();
  const stack: string[] = [];
  const found: string[][] = [];
  const visit = (file: string): void => {
    index.set(file, index.size);
    low.set(file, index.size - 1);
    stack.push(file);
    for (const to of next.get(file) ?? []) {
      if (!index.has(to)) visit(to);
      if (stack.includes(to)) low.set(file, Math.min(low.get(file) ?? 0, low.get(to) ?? 0));
    }
    if (low.get(file) !== index.get(file)) return;
    const component = stack.splice(stack.indexOf(file));
    if (component.length > 1) found.push(component.sort());
  };
  for (const file of next.keys()) if (!index.has(file)) visit(file);
  return found;
}

describe('layers', () => {
  it('are found in the source', () => {
    expect(imports.length).toBeGreaterThan(100);
    expect(imports.some((i) => i.typeOnly)).toBe(true);
    expect(imports.some((i) => layerOf(i.from) === 1 && layerOf(i.to) === 0)).toBe(true);
  });

  it('import one way: src ← passes ← runtime ← src/cli', () => {
    const wrong = imports
      .filter(({ from, to }) => layerOf(to) > layerOf(from))
      .map(({ from, to }) => `${from} imports ${to}`);
    expect(wrong).toEqual([]);
  });

  it('hold no cycles of files but those of types', () => {
    expect(
      cycles([
        { from: 'a', to: 'b', typeOnly: false },
        { from: 'b', to: 'a', typeOnly: false },
      ]),
    ).toEqual([['a', 'b']]);
    expect(cycles(imports.filter((i) => !i.typeOnly))).toEqual([]);
  });

  it('of src and passes leave the file system to src/onnx and runtime', () => {
    const allowed = (path: string): boolean => path.startsWith('src/onnx/') || layerOf(path) >= 2;
    const wrong = project
      .getSourceFiles()
      .filter((file) => !allowed(pathOf(file)))
      .flatMap((file) =>
        file
          .getImportDeclarations()
          .map((declaration) => declaration.getModuleSpecifierValue())
          .filter((name) => /^(node:)?fs(\/|$)/.test(name) || name === 'onnxruntime-node')
          .map((name) => `${pathOf(file)} imports ${name}`),
      );
    expect(wrong).toEqual([]);
  });
});
