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
  await emitArtifacts(artifacts);
  const server = createServer((request, response) => {
    const { pathname } = new URL(request.url ?? '/', 'http://localhost');
    const file = fileOf(pathname, artifacts);
    send(file).catch(() => {
      response.writeHead(404).end('not found');
    });

    async function send(path: string | undefined): Promise<void> {
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
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, '127.0.0.1', resolve);
  });
  const address = server.address();
  const open = typeof address === 'object' && address !== null ? address.port : port;
  return {
    url: `http://127.0.0.1:${open}/`,
    async close() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
      await rm(artifacts, { recursive: true });
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
  const { url } = await serveExample(Number(process.env.PORT ?? DEFAULT_PORT));
  process.stdout.write(`Open ${url}\n`);
}
