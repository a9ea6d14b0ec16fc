/** The library's public face: what it exports, and that no library behind it shows through. */
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import * as library from 'peft-compile';
import ts from 'typescript';
import { describe, expect, it } from 'vitest';
import { repositoryRoot } from './helpers/fixtures.js';

const entry = join(repositoryRoot, 'src/index.ts');

/** Declarations of everything that `src/index.ts` reaches, as a consumer's compiler sees them. */
function declarations(): { texts: ReadonlyMap<string, string>; program: ts.Program } {
  const file = ts.readConfigFile(join(repositoryRoot, 'tsconfig.build.json'), ts.sys.readFile);
  const { options } = ts.parseJsonConfigFileContent(file.config, ts.sys, repositoryRoot);
  const program = ts.createProgram([entry], { ...options, outDir: '/out', sourceMap: false });
  const texts = new Map<string, string>();
  program.emit(undefined, (path, text) => texts.set(path, text), undefined, true);
  return { texts, program };
}

const { texts, program } = declarations();

/** Modules that the declarations reachable from the entry import. */
function importsOf(): { packages: Set<string>; files: Set<string> } {
  const packages = new Set<string>();
  const files = new Set<string>();
  const queue = ['/out/src/index.d.ts'];
  for (let path = queue.pop(); path !== undefined; path = queue.pop()) {
    if (files.has(path)) continue;
    files.add(path);
    for (const { fileName } of ts.preProcessFile(texts.get(path) ?? '').importedFiles)
      if (fileName.startsWith('.')) queue.push(join(dirname(path), fileName.replace(/\.js$/, '.d.ts')));
      else packages.add(fileName);
  }
  return { packages, files };
}

describe('the package', () => {
  it('exports these values', () => {
    expect(Object.keys(library).sort()).toMatchInlineSnapshot(`
      [
        "Builder",
        "EXIT",
        "Graph",
        "Model",
        "Node",
        "Output",
        "PeftCompileError",
        "Value",
        "adapterOfCheckpoint",
        "adapterOfOrtCheckpoint",
        "applyEdit",
        "assertValid",
        "attach",
        "attachAdapter",
        "attr",
        "backward",
        "baseValue",
        "checkSymbols",
        "cloneModel",
        "collapseAdapter",
        "combine",
        "constant",
        "constantOf",
        "createSession",
        "datasetOf",
        "decodeModel",
        "decodeNumbers",
        "decodeOnnxAdapter",
        "defineConfig",
        "defineGradient",
        "defineLoss",
        "defineMethod",
        "defineOptimizer",
        "definePass",
        "definePreset",
        "definedValues",
        "derived",
        "digestWeights",
        "emit",
        "encodeModel",
        "evaluate",
        "findNode",
        "findSites",
        "findValue",
        "findWeightSites",
        "fold",
        "formatType",
        "inferModel",
        "insert",
        "inspect",
        "intsOf",
        "isOrtCheckpoint",
        "load",
        "loadArtifacts",
        "loadTokenizer",
        "losses",
        "methods",
        "nodesAfter",
        "nodesBefore",
        "nominalOf",
        "normal",
        "numbersOf",
        "ones",
        "optimizers",
        "ortCheckpointBytes",
        "parseModel",
        "planMemory",
        "presets",
        "printModel",
        "quantize",
        "readAdapter",
        "readAdapterRecord",
        "readOnnxAdapter",
        "readOrtCheckpoint",
        "redirectUses",
        "runPasses",
        "save",
        "savedModules",
        "serve",
        "servingTensors",
        "sharedPeak",
        "siteKindsOf",
        "sortTopologically",
        "symbolicIntsOf",
        "tensorOf",
        "tensorOfNumbers",
        "tensorType",
        "train",
        "unfuseAttention",
        "uniform",
        "validateModel",
        "verify",
        "walkGraphs",
        "walkNodes",
        "writeAdapter",
        "writeOnnxAdapter",
        "writeOrtAdapter",
        "writeOrtCheckpoint",
        "writePeft",
        "z",
        "zeros",
      ]
    `);
  });

  it('declares types that need no package but zod', () => {
    const { packages, files } = importsOf();
    expect(files.size).toBeGreaterThan(50);
    for (const file of files) expect(texts.has(file), file).toBe(true);
    expect([...packages].sort()).toEqual(['zod']);
  });

  it('exports every type that its functions and types speak of by name', () => {
    const checker = program.getTypeChecker();
    const module = checker.getSymbolAtLocation(program.getSourceFile(entry)!)!;
    const unaliased = (symbol: ts.Symbol) =>
      symbol.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol;
    const exported = new Set(checker.getExportsOfModule(module).map(unaliased));
    for (const symbol of [...exported])
      if (symbol.flags & ts.SymbolFlags.ValueModule)
        for (const member of checker.getExportsOfModule(symbol)) exported.add(unaliased(member));
    const missing = new Set<string>();
    const { intentionallyNotExported } = JSON.parse(
      readFileSync(join(repositoryRoot, 'typedoc.json'), 'utf8'),
    ) as { intentionallyNotExported: string[] };
    for (const symbol of exported)
      for (const declaration of symbol.declarations ?? []) {
        if (declaration.getSourceFile().fileName.includes('node_modules')) continue;
        visit(declaration);
      }
    // One field of a plan, bases whose members are part of what extends them, and what a class that is exported as a type is constructed from.
    const inner = [
      'passes/fold/plan.ts:FoldPlan',
      'passes/sites/site.ts:SiteBase',
      'runtime/library/emit.ts:Destination',
      'runtime/session-protocol.ts:CreatedReply',
    ];
    const allowed = new Set([...intentionallyNotExported, ...inner]);
    expect([...missing].filter((name) => !allowed.has(name)).sort()).toEqual([]);

    /** Names of types in signatures and members; bodies and private members are nobody's business. */
    function visit(node: ts.Node): void {
      if (ts.isBlock(node) || ts.isPrivateIdentifier(node)) return;
      if (ts.isClassElement(node) && node.name !== undefined && ts.isPrivateIdentifier(node.name)) return;
      if (ts.isVariableDeclaration(node)) {
        if (node.type !== undefined) visit(node.type);
        return;
      }
      if (ts.isPropertyDeclaration(node)) {
        if (node.type !== undefined) visit(node.type);
        return;
      }
      if (ts.isTypeReferenceNode(node) || ts.isExpressionWithTypeArguments(node)) {
        const name = ts.isTypeReferenceNode(node) ? node.typeName : node.expression;
        const found = checker.getSymbolAtLocation(name);
        const symbol = found === undefined ? undefined : unaliased(found);
        const source = symbol?.declarations?.[0]?.getSourceFile().fileName ?? '';
        const own = source.startsWith(repositoryRoot) && !source.includes('node_modules');
        if (
          symbol !== undefined &&
          own &&
          !exported.has(symbol) &&
          !(symbol.flags & ts.SymbolFlags.TypeParameter)
        )
          missing.add(`${source.slice(repositoryRoot.length + 1)}:${name.getText()}`);
      }
      ts.forEachChild(node, visit);
    }
  });

  it('is found by its name from package.json', () => {
    const { exports } = JSON.parse(readFileSync(join(repositoryRoot, 'package.json'), 'utf8')) as {
      exports: Record<string, { types: string; default: string }>;
    };
    const main = exports['.']!;
    for (const path of [main.types, main.default])
      expect(existsSync(join(repositoryRoot, path)), `${path}: run \`npm run build\` first`).toBe(true);
  });
});
