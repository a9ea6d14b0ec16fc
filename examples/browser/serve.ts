/** Emits the quickstart's training graph and serves the page: `npm run example:browser`. */
import { createReadStream } from 'node:fs';
import { mkdtemp, rm, stat } from 'node:fs/promises';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { dirname, extname, join, normalize, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import { packageFile } from '../../src/cli/package-file.js';
import { emit, insert, load } from '../../src/index.js';

const ROOT = dirname(packageFile('package.json'));
const DEFAULT_PORT = 8080;

/** Rows and tokens of a batch, as the page feeds them. */
const BATCH = { batch: 4, sequence: 64 };

const TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript',
  '.mjs': 'text/javascript',
  '.json': 'application/json',
  '.wasm': 'application/wasm',
  '.txt': 'text/plain; charset=utf-8',
};

/** What the page may load, by the beginning of its path. */
const PUBLIC = [
  'dist/examples/browser/',
  'dist/passes/',
  'dist/runtime/',
  'dist/src/',
  'fixtures/quickstart/',
  'node_modules/@huggingface/tokenizers/dist/',
  'node_modules/onnxruntime-web/dist/',
];

export interface Example {
  readonly url: string;
  close(): Promise<void>;
}

/** Serves on the loopback interface; port 0 takes a free one. */
export async function serveExample(port = DEFAULT_PORT): Promise<Example> {
  const artifacts = await mkdtemp(join(tmpdir(), 'peft-compile-example-'));
  const discard = () => rm(artifacts, { recursive: true, force: true });
  const server = createServer((request, response) => {
    send(request.url ?? '/').catch(() => response.writeHead(404).end('not found'));

    async function send(url: string): Promise<void> {
      const path = fileOf(new URL(url, 'http://localhost').pathname, artifacts);
      if (path === undefined || !(await stat(path)).isFile()) throw new Error('not found');
      response.writeHead(200, {
        'content-type': TYPES[extname(path)] ?? 'application/octet-stream',
        // With these two, WebAssembly may use threads.
        'cross-origin-opener-policy': 'same-origin',
        'cross-origin-embedder-policy': 'require-corp',
      });
      createReadStream(path).pipe(response);
    }
  });
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(port, '127.0.0.1', resolve);
    });
    await emitArtifacts(artifacts);
  } catch (error) {
    server.close();
    await discard();
    throw error;
  }
  const address = server.address();
  const open = typeof address === 'object' && address !== null ? address.port : port;
  return {
    url: `http://127.0.0.1:${open}/`,
    async close() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
      await discard();
    },
  };
}

/** The file behind a path of the page; undefined for what is not public. */
function fileOf(pathname: string, artifacts: string): string | undefined {
  const path = normalize(decodeURIComponent(pathname)).split(sep).join('/').replace(/^\/+/, '');
  if (path === '') return join(ROOT, 'examples/browser/index.html');
  if (path.startsWith('..')) return undefined;
  if (path.startsWith('artifacts/')) return join(artifacts, path.slice('artifacts/'.length));
  return PUBLIC.some((prefix) => path.startsWith(prefix)) ? join(ROOT, path) : undefined;
}

/** One folder for each provider that the page offers. */
async function emitArtifacts(out: string): Promise<void> {
  const model = await load(join(ROOT, 'fixtures/quickstart/model.onnx'));
  await insert(model, {
    method: 'lora',
    targeting: { targets: 'all-linear' },
    config: { rank: 8, alpha: 16 },
  });
  const options = {
    target: 'step',
    loss: 'causal-lm',
    clip: 1,
    schedule: { id: 'cosine', learningRate: 1e-2, warmupSteps: 5 },
  } as const;
  await emit(model, { ...options, out: join(out, 'wasm') });
  await emit(model, { ...options, out: join(out, 'webgpu'), device: { id: 'webgpu', sizes: BATCH } });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  process.stdout.write('Emitting the training graphs …\n');
  const port = Number(process.env.PORT ?? DEFAULT_PORT);
  try {
    const example = await serveExample(port);
    process.stdout.write(`Open ${example.url} (Ctrl-C ends it)\n`);
    process.once('SIGINT', () => example.close());
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'EADDRINUSE')) throw error;
    process.stderr.write(`Port ${port} is taken: choose another with PORT=8090 npm run example:browser\n`);
    process.exitCode = 2;
  }
}
