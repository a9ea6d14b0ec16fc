/**
 * ONNX Runtime sessions in a worker thread. A `SessionHost` is one thread with any number of sessions and a store of
 * resident tensors that they share; `createSession` is a host with one session. The main thread stays free while a
 * model runs, and CPU inputs reach ORT without a copy when the caller gives the buffers away (`transfer`).
 */
import { existsSync } from 'node:fs';
import { fail, PeftCompileError } from '../src/errors.js';
import { byteSize, countOf } from '../src/types.js';
import { type ExecutionProvider, providerOf } from './ep/index.js';
import type { HostTensor } from './host-tensor.js';
import { ortError } from './ort-errors.js';
import { deviceAccess, rawOptions, type SessionOptions } from './session-options.js';
import type { CreatedReply, Reply, Request, TensorInfo, Tensors } from './session-protocol.js';
import { type Ended, Thread } from './thread.js';
import { workerFile } from './worker-file.js';

export { LOG_LEVELS, type LogLevel, type SessionOptions } from './session-options.js';
export type { TensorInfo, Tensors } from './session-protocol.js';

export interface RunRequest {
  /** Tensors by input name. */
  readonly feeds?: Tensors;
  /** Inputs taken from the resident store: input name → key. */
  readonly resident?: Readonly<Record<string, string>>;
  /** Outputs that become resident: output name → key. They replace what the key held once the run has succeeded. */
  readonly keep?: Readonly<Record<string, string>>;
  /** Outputs to return; default: all that are not kept. */
  readonly fetch?: readonly string[];
  /** Outputs of `fetch`, scalars: where one of them is not finite, nothing is kept, and the keys hold what they held. */
  readonly ifFinite?: readonly string[];
  /** Give the buffers of `feeds` away instead of copying them; they are empty afterwards. */
  readonly transfer?: boolean;
}

const SCRIPT = 'session-worker';

/** 1 while a thread uses a device: the runtime's access to devices is one per process, and not safe for threads. */
const deviceLock = new Int32Array(new SharedArrayBuffer(4));

/** What each living thread has to do still, shared with it. */
const underway = new Set<Int32Array>();

/**
 * Blocks until no thread is inside ONNX Runtime: a process that exits in the middle of a run is aborted by the runtime's
 * binding instead. False when that takes longer than `milliseconds`.
 */
export function settleSessions(milliseconds: number): boolean {
  const end = performance.now() + milliseconds;
  for (const count of underway)
    for (let open = Atomics.load(count, 0); open > 0; open = Atomics.load(count, 0)) {
      const left = end - performance.now();
      if (left <= 0) return false;
      Atomics.wait(count, 0, open, left);
    }
  return true;
}

/** One worker thread: sessions that share resident tensors. */
export class SessionHost {
  /** Starts at one: loading the runtime is not to be broken off either. */
  readonly #underway = new Int32Array(new SharedArrayBuffer(4)).fill(1);
  readonly #thread: Thread<Request, Reply>;
  #closing: Promise<void> | undefined;

  constructor() {
    checkBuilt();
    const data = { underway: this.#underway, deviceLock };
    this.#thread = new Thread(SCRIPT, data, (ended) => this.#gone(ended));
    underway.add(this.#underway);
  }

  /**
   * Loads a model from a path (external data next to it) or from bytes; with `transfer` the bytes are given away.
   * @throws E_IO, E_INVALID_GRAPH, E_EXTERNAL_DATA for the file; E_UNSUPPORTED for missing kernels or providers.
   */
  async createSession(
    model: string | Uint8Array,
    options: SessionOptions = {},
    { transfer = false }: { readonly transfer?: boolean } = {},
  ): Promise<Session> {
    const where = typeof model === 'string' ? model : 'model in memory';
    if (typeof model === 'string' && !existsSync(model))
      fail('E_IO', { message: 'The model file does not exist', where, remedy: 'Check the path.' });
    const buffers = transfer && typeof model !== 'string' ? wholeBuffers([model]) : [];
    const provider = providerOf(options.ep);
    const device = deviceAccess(provider);
    const reply = await this.#send(
      {
        op: 'create',
        model,
        options: rawOptions(options, provider),
        ...(device === undefined ? {} : { device }),
      },
      where,
      buffers,
      provider,
    );
    return new Session(this, reply as CreatedReply, where, provider);
  }

  /** Stores tensors under keys, replacing what was there. */
  async put(tensors: Tensors): Promise<void> {
    await this.#send({ op: 'put', tensors }, 'resident tensors');
  }

  /** Copies of resident tensors. */
  async get(keys: readonly string[]): Promise<Tensors> {
    return (await this.#send({ op: 'get', keys }, 'resident tensors')) as Tensors;
  }

  async drop(keys: readonly string[]): Promise<void> {
    await this.#send({ op: 'drop', keys }, 'resident tensors');
  }

  /** Whether the thread is gone, closed or crashed. */
  get ended(): boolean {
    return this.#thread.ended;
  }

  /** Releases every session and ends the thread. */
  async close(): Promise<void> {
    this.#closing ??= this.ended ? Promise.resolve() : this.#end();
    await this.#closing;
  }

  async #end(): Promise<void> {
    await this.#send({ op: 'close' }, 'session host');
    await this.#thread.over();
  }

  /** Used by `Session`. */
  async request(
    request: Request,
    where: string,
    transfer: readonly ArrayBuffer[] = [],
    provider: ExecutionProvider = providerOf(),
  ) {
    return this.#send(request, where, transfer, provider);
  }

  async #send(
    request: Request,
    where: string,
    transfer: readonly ArrayBuffer[] = [],
    provider: ExecutionProvider = providerOf(),
  ): Promise<CreatedReply | Tensors | null> {
    if (!this.ended) Atomics.add(this.#underway, 0, 1);
    const reply = await this.#thread.call(request, transfer);
    if (!reply.ok) throw ortError(reply.error, where, provider);
    return reply.value;
  }

  #gone({ cause, status }: Ended): PeftCompileError {
    underway.delete(this.#underway);
    const ended =
      this.#closing === undefined
        ? `The ONNX Runtime thread ended with status ${status}`
        : 'The session was used after its host was closed';
    return new PeftCompileError('E_RUNTIME', {
      message: status === undefined ? `The ONNX Runtime thread crashed: ${String(cause)}` : ended,
      remedy: 'If memory ran out, use a smaller batch or shorter sequences.',
      cause,
    });
  }
}

/** A loaded model. */
export class Session {
  readonly host: SessionHost;
  readonly inputs: readonly TensorInfo[];
  readonly outputs: readonly TensorInfo[];
  /** Path of the model, for messages. */
  readonly where: string;
  readonly provider: ExecutionProvider;
  readonly #id: number;
  readonly #inputByName: ReadonlyMap<string, TensorInfo>;
  #ownsHost = false;

  constructor(host: SessionHost, created: CreatedReply, where: string, provider: ExecutionProvider) {
    this.host = host;
    this.provider = provider;
    this.inputs = created.inputs;
    this.outputs = created.outputs;
    this.where = where;
    this.#id = created.session;
    this.#inputByName = new Map(created.inputs.map((info) => [info.name, info]));
  }

  /** Makes `release` close the host too. */
  ownHost(): this {
    this.#ownsHost = true;
    return this;
  }

  /** Runs on plain tensors and returns the outputs named in `fetch`, default all. */
  async run(feeds: Tensors, fetch?: readonly string[]): Promise<Record<string, HostTensor>> {
    return this.runWith({ feeds, ...(fetch === undefined ? {} : { fetch }) });
  }

  /** Runs with resident tensors on either side. */
  async runWith(request: RunRequest): Promise<Record<string, HostTensor>> {
    const { feeds = {}, resident = {}, keep = {}, transfer = false, ifFinite } = request;
    const fetch =
      request.fetch ?? this.outputs.map((output) => output.name).filter((name) => !(name in keep));
    this.#check(feeds, resident, [...fetch, ...Object.keys(keep)]);
    const buffers = wholeBuffers(transfer ? Object.values(feeds).map(({ data }) => data) : []);
    const reply = await this.host.request(
      {
        op: 'run',
        session: this.#id,
        feeds,
        resident,
        keep,
        fetch,
        ...(ifFinite === undefined ? {} : { ifFinite }),
      },
      this.where,
      buffers,
      this.provider,
    );
    return reply as Record<string, HostTensor>;
  }

  async release(): Promise<void> {
    if (this.#ownsHost) await this.host.close();
    // A thread that has ended, by a crash too, holds nothing.
    else if (!this.host.ended) await this.host.request({ op: 'release', session: this.#id }, this.where);
  }

  #check(feeds: Tensors, resident: Readonly<Record<string, string>>, outputs: readonly string[]): void {
    for (const [name, tensor] of Object.entries(feeds)) {
      const info = this.#inputByName.get(name) ?? this.#noInput(name);
      checkTensor(info, tensor, this.where);
    }
    for (const name of Object.keys(resident)) if (!this.#inputByName.has(name)) this.#noInput(name);
    for (const { name } of this.inputs)
      if (!(name in feeds) && !(name in resident))
        fail('E_TYPE', {
          message: `Input '${name}' was not given`,
          where: this.where,
          remedy: `The model takes ${this.inputs.map((i) => i.name).join(', ')}.`,
        });
    const known = new Set(this.outputs.map((output) => output.name));
    for (const name of outputs)
      if (!known.has(name))
        fail('E_NO_MATCH', {
          message: `The model has no output '${name}'`,
          where: this.where,
          remedy: `It has ${[...known].join(', ')}.`,
        });
  }

  #noInput(name: string): never {
    return fail('E_TYPE', {
      message: `The model has no input '${name}'`,
      where: this.where,
      remedy: `It takes ${this.inputs.map((i) => i.name).join(', ')}.`,
    });
  }
}

/** A session on a thread of its own; `release()` ends the thread. */
export async function createSession(
  model: string | Uint8Array,
  options: SessionOptions = {},
): Promise<Session> {
  const host = new SessionHost();
  try {
    return (await host.createSession(model, options)).ownHost();
  } catch (error) {
    await host.close();
    throw error;
  }
}

/** Checks dtype, rank, fixed dimensions and byte length of one feed. */
function checkTensor(info: TensorInfo, tensor: HostTensor, where: string): void {
  const wanted = `${info.dtype}[${info.shape.map((d) => (d === '' ? '?' : d)).join(', ')}]`;
  const got = `${tensor.dtype}[${tensor.dims.join(', ')}]`;
  const bad =
    tensor.dtype !== info.dtype ||
    // A scalar and a tensor of unknown rank both report an empty shape, so ORT has the last word on rank 0.
    (info.shape.length > 0 &&
      (tensor.dims.length !== info.shape.length ||
        info.shape.some((dim, axis) => typeof dim === 'number' && tensor.dims[axis] !== dim)));
  if (bad)
    fail('E_TYPE', {
      message: `Input '${info.name}' is ${wanted}, the given tensor is ${got}`,
      where,
      remedy: 'Give a tensor of the declared dtype and shape.',
    });
  const bytes = byteSize(tensor.dtype, countOf(tensor.dims));
  if (bytes !== tensor.data.byteLength)
    fail('E_TYPE', {
      message: `The tensor for input '${info.name}' has ${tensor.data.byteLength} bytes, ${got} takes ${bytes}`,
      where,
    });
}

/** Buffers that belong to one array alone and can be moved to another thread. */
function wholeBuffers(arrays: readonly Uint8Array[]): ArrayBuffer[] {
  const buffers = new Set<ArrayBuffer>();
  for (const { buffer, byteLength } of arrays)
    if (buffer instanceof ArrayBuffer && byteLength === buffer.byteLength) buffers.add(buffer);
  return [...buffers];
}

function checkBuilt(): void {
  const path = workerFile(SCRIPT);
  if (!existsSync(path))
    fail('E_RUNTIME', {
      message: 'The session worker is not built',
      where: path,
      remedy: 'Run `npm run build` first.',
    });
}
