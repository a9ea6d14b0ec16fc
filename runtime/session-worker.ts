/**
 * The thread that runs ONNX Runtime. `InferenceSession.run` of onnxruntime-node blocks its thread for the whole run, so
 * it never happens on the main thread. Tensors may stay resident here between runs: an output kept under a key is the
 * next run's input without leaving the thread, which is how parameters and optimizer state rotate.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { env, InferenceSession, Tensor } from 'onnxruntime-node';
import type { HostTensor } from './host-tensor.js';
import type { CreatedReply, DeviceAccess, Reply, Request, TensorInfo, Tensors } from './session-protocol.js';
import { hasArray, typedArray } from './typed-arrays.js';

// Errors are thrown to the caller; the library itself stays quiet.
env.logLevel = 'fatal';

const sessions = new Map<number, InferenceSession>();
const resident = new Map<string, Tensor>();
/** Sessions that may be fed tensors of the device. */
const onDevice = new Set<number>();
let access: DeviceAccess | undefined;
const copiers = new Map<string, InferenceSession>();
let nextSession = 0;

function toOrt({ dtype, dims, data }: HostTensor): Tensor {
  if (!hasArray(dtype)) throw new Error(`Unsupported data type: ${dtype}`);
  return new Tensor(dtype, typedArray(dtype, data), dims);
}

function fromOrt(name: string, tensor: Tensor): HostTensor {
  const { data } = tensor;
  if (Array.isArray(data)) throw new Error(`Output '${name}' is a string tensor, which is not supported`);
  return {
    dtype: tensor.type as HostTensor['dtype'],
    dims: tensor.dims,
    data: new Uint8Array(data.buffer, data.byteOffset, data.byteLength),
  };
}

function describe(metadata: readonly InferenceSession.ValueMetadata[]): TensorInfo[] {
  return metadata.map((entry) =>
    entry.isTensor
      ? { name: entry.name, dtype: entry.type, shape: entry.shape }
      : { name: entry.name, dtype: undefined, shape: [] },
  );
}

async function create(request: Extract<Request, { op: 'create' }>): Promise<CreatedReply> {
  const { model, options } = request;
  const session =
    typeof model === 'string'
      ? await InferenceSession.create(model, options)
      : await InferenceSession.create(model, options);
  const id = nextSession++;
  sessions.set(id, session);
  if (request.device !== undefined) {
    onDevice.add(id);
    access = request.device;
  }
  return { session: id, inputs: describe(session.inputMetadata), outputs: describe(session.outputMetadata) };
}

function residentTensor(key: string): Tensor {
  const tensor = resident.get(key);
  if (tensor === undefined) throw new Error(`No resident tensor '${key}'`);
  return tensor;
}

function isOnDevice(tensor: Tensor): boolean {
  return tensor.location === 'gpu-buffer';
}

/** Releases the memory of a device; host memory is the garbage collector's. */
function discard(tensor: Tensor | undefined): void {
  if (tensor !== undefined && isOnDevice(tensor)) tensor.dispose();
}

/** Keeps a tensor under a key in place of what was there. */
function store(key: string, tensor: Tensor): void {
  const before = resident.get(key);
  resident.set(key, tensor);
  if (before !== tensor) discard(before);
}

/**
 * A tensor in host memory. The binding ends the process when a tensor of the device is read, so a session that copies
 * its input brings it back.
 */
async function onHost(tensor: Tensor): Promise<Tensor> {
  if (!isOnDevice(tensor)) return tensor;
  const { type } = tensor;
  let copier = copiers.get(type);
  if (copier === undefined) {
    const model = access?.copies[type];
    if (model === undefined) throw new Error(`Tensors of dtype ${type} cannot be read from the device`);
    copier = await InferenceSession.create(model, access?.options ?? {});
    copiers.set(type, copier);
  }
  const { y } = await copier.run({ x: tensor });
  return y as Tensor;
}

function holdsFinite(tensor: Tensor | undefined): boolean {
  return Number.isFinite((tensor?.data as ArrayLike<number> | undefined)?.[0]);
}

async function run(request: Extract<Request, { op: 'run' }>): Promise<Tensors> {
  const session = sessions.get(request.session);
  if (session === undefined) throw new Error('The session was released');
  const feeds: Record<string, Tensor> = {};
  for (const [name, tensor] of Object.entries(request.feeds)) feeds[name] = toOrt(tensor);
  for (const [name, key] of Object.entries(request.resident)) {
    const tensor = residentTensor(key);
    feeds[name] = onDevice.has(request.session) ? tensor : await onHost(tensor);
  }
  const wanted = new Set([...request.fetch, ...Object.keys(request.keep)]);
  const fetches: Record<string, Tensor | null> = {};
  for (const name of session.outputNames) if (wanted.has(name)) fetches[name] = null;
  const results = await session.run(feeds, fetches);
  const accepted = (request.ifFinite ?? []).every((name) => holdsFinite(results[name] as Tensor | undefined));
  for (const [name, key] of Object.entries(request.keep)) {
    const output = results[name];
    if (output === undefined) throw new Error(`The model has no output '${name}'`);
    if (accepted) store(key, output as Tensor);
    else discard(output as Tensor);
  }
  const reply: Record<string, HostTensor> = {};
  for (const name of request.fetch) {
    const output = results[name];
    if (output === undefined) throw new Error(`The model has no output '${name}'`);
    const tensor = fromOrt(name, await onHost(output as Tensor));
    // A kept output must survive the transfer of its buffer, so the caller gets a copy.
    reply[name] = name in request.keep ? { ...tensor, data: tensor.data.slice() } : tensor;
  }
  return reply;
}

async function get(keys: readonly string[]): Promise<Tensors> {
  const reply: Record<string, HostTensor> = {};
  for (const key of keys) {
    const tensor = fromOrt(key, await onHost(residentTensor(key)));
    reply[key] = { ...tensor, data: tensor.data.slice() };
  }
  return reply;
}

/** Whether a request touches a device, as those of a thread with sessions there may. */
function usesDevice(request: Request): boolean {
  return access !== undefined || (request.op === 'create' && request.device !== undefined);
}

/** Runs while no other thread of the process uses a device. */
async function exclusively<T>(needed: boolean, action: () => Promise<T>): Promise<T> {
  if (!needed) return action();
  while (Atomics.compareExchange(deviceLock, 0, 0, 1) !== 0) Atomics.wait(deviceLock, 0, 1);
  try {
    return await action();
  } finally {
    Atomics.store(deviceLock, 0, 0);
    Atomics.notify(deviceLock, 0, 1);
  }
}

async function handle(request: Request): Promise<CreatedReply | Tensors | null> {
  switch (request.op) {
    case 'create':
      return create(request);
    case 'run':
      return run(request);
    case 'put':
      for (const [key, tensor] of Object.entries(request.tensors)) store(key, toOrt(tensor));
      return null;
    case 'get':
      return get(request.keys);
    case 'drop':
      for (const key of request.keys) {
        discard(resident.get(key));
        resident.delete(key);
      }
      return null;
    case 'release': {
      const session = sessions.get(request.session);
      sessions.delete(request.session);
      onDevice.delete(request.session);
      await session?.release();
      return null;
    }
    case 'close':
      for (const tensor of resident.values()) discard(tensor);
      resident.clear();
      for (const session of [...copiers.values(), ...sessions.values()]) await session.release();
      copiers.clear();
      sessions.clear();
      return null;
  }
}

/** Buffers of a reply to run or get, each once, so that they move instead of being copied. */
function transferList(value: CreatedReply | Tensors | null, op: Request['op']): ArrayBuffer[] {
  if (value === null || (op !== 'run' && op !== 'get')) return [];
  const buffers = new Set<ArrayBuffer>();
  for (const tensor of Object.values(value as Tensors))
    if (tensor.data.buffer instanceof ArrayBuffer) buffers.add(tensor.data.buffer);
  return [...buffers];
}

const port = parentPort;
if (port === null) throw new Error('session-worker runs as a worker thread only');
// Counted up by the sender, down here: what an exiting process waits for.
const { underway, deviceLock } = workerData as { underway: Int32Array; deviceLock: Int32Array };
function done(): void {
  Atomics.sub(underway, 0, 1);
  Atomics.notify(underway, 0);
}
// Requests are handled one after another, in the order they were sent.
let queue: Promise<void> = Promise.resolve();
port.on('message', ({ id, request }: { id: number; request: Request }) => {
  queue = queue.then(async () => {
    try {
      const value = await exclusively(usesDevice(request), () => handle(request));
      const reply: Reply = { id, ok: true, value };
      port.postMessage(reply, transferList(value, request.op));
      if (request.op === 'close') port.close();
    } catch (error) {
      const reply: Reply = { id, ok: false, error: error instanceof Error ? error.message : String(error) };
      port.postMessage(reply);
    } finally {
      done();
    }
  });
});
// The runtime is loaded.
done();
