/** What ONNX Runtime says, turned into errors that name the cause and the way out. */
import { type ErrorCode, PeftCompileError } from '../src/errors.js';
import { type ExecutionProvider, providerOf } from './ep/index.js';

interface Rule {
  readonly match: RegExp;
  readonly code: ErrorCode;
  readonly message: (groups: RegExpMatchArray, provider: ExecutionProvider) => string;
  readonly remedy: string | ((provider: ExecutionProvider) => string);
}

/** First match wins. */
const RULES: readonly Rule[] = [
  {
    match:
      /device (was |is |has been )?lost|DeviceLost|CUDA_ERROR_(ILLEGAL|LAUNCH|ECC)|CUDA failure (700|719|214)\b/i,
    code: 'E_RUNTIME',
    message: (_, { title }) => `The device of ${title} was lost`,
    remedy:
      'Nothing on the device survives; what was saved does. Look at the log of the driver (dmesg), and continue from the last checkpoint with --resume.',
  },
  {
    match:
      /Failed to allocate memory|bad_alloc|BFCArena.*failed|out of memory|Array buffer allocation failed|OUT_OF_(HOST|DEVICE)_MEMORY|(CreateBuffer|buffer).*(too large|exceeds the max|larger than the max)|CUBLAS_STATUS_ALLOC_FAILED/i,
    code: 'E_RUNTIME',
    message: (_, { title }) => `ONNX Runtime ran out of memory on ${title}`,
    remedy: ({ outOfMemory }) => outOfMemory,
  },
  {
    match:
      /disable_cpu_ep_fallback|This session contains graph nodes that are assigned to the default CPU EP/i,
    code: 'E_UNSUPPORTED',
    message: () => 'Some nodes would run on the CPU although the session asked for the accelerator only',
    remedy: 'Allow the CPU fallback, or emit the graph with operators that the accelerator has.',
  },
  {
    match:
      /AppendExecutionProvider|Failed to load (shared )?library|backend not found|no available backend|EP .*not|Unknown execution provider|providers_shared|providers_cuda|libcu|execution provider .*(not enabled|not available|not supported)|WebGPU.*(adapter|device)|CUDA driver version is insufficient|no CUDA-capable device/i,
    code: 'E_UNSUPPORTED',
    message: (_, { title }) => `The execution provider ${title} is not available here`,
    remedy: ({ absent }) => absent,
  },
  {
    match: /input '([^']+)' is missing in 'feeds'|Missing Input: (\S+)/i,
    code: 'E_TYPE',
    message: (m) => `Input '${m[1] ?? m[2]}' was not given`,
    remedy: 'Give every input of the model a tensor.',
  },
  {
    match: /Invalid Feed Input Name:\s*(\S+)/i,
    code: 'E_TYPE',
    message: (m) => `The model has no input '${m[1]}'`,
    remedy: 'Check the name against the inputs that `peft-compile inspect` lists.',
  },
  {
    match: /Invalid rank for input: (\S+)|Got invalid dimensions for input: (\S+)/i,
    code: 'E_TYPE',
    message: (m) => `Input '${m[1] ?? m[2]}' has the wrong shape`,
    remedy: 'Give it the shape that the model declares.',
  },
  {
    match: /Unexpected input data type/i,
    code: 'E_TYPE',
    message: () => 'An input has the wrong dtype',
    remedy: 'Give it the dtype that the model declares.',
  },
  {
    match: /Unsupported data type: ?(\S+)/i,
    code: 'E_UNSUPPORTED',
    message: (m) => `onnxruntime-node cannot pass tensors of dtype ${DTYPE_NUMBERS[m[1] ?? ''] ?? m[1]}`,
    remedy: 'Put a Cast to float32 at that input or output; bfloat16 can stay inside the graph.',
  },
  {
    match: /requires f16 but the device does not support it|shader-f16/i,
    code: 'E_UNSUPPORTED',
    message: (_, { title }) => `The device of ${title} has no half precision (shader-f16)`,
    remedy: 'Export the model in float32, use --ep cpu, or another GPU or driver.',
  },
  {
    match: /Provider type for (\S+) node with name '([^']*)' is not set/,
    code: 'E_UNSUPPORTED',
    message: (m, { title }) => `Neither ${title} nor the CPU has a kernel for node '${m[2]}' (${m[1]})`,
    remedy: 'Use another dtype for it, or leave it out.',
  },
  {
    match:
      /is not a registered function\/op|No Op registered|Could not find an implementation for ([^\s(]+)|NOT_IMPLEMENTED/i,
    code: 'E_UNSUPPORTED',
    message: (m, { title }) =>
      m[1] === undefined
        ? 'The model holds an operator that this build of ONNX Runtime cannot run'
        : `ONNX Runtime has no kernel for ${m[1]} on ${title}`,
    remedy: 'Run the model with an execution provider or a dtype that has the operator.',
  },
  {
    match:
      /while running (\S+) node\. Name:'([^']*)'[\s\S]*(?:indices element out of data bounds|Out of range value in index tensor)/,
    code: 'E_INVALID_DATA',
    message: (m) => `Node '${m[2]}' (${m[1]}) was given an index outside its table`,
    remedy:
      'Check the data: token ids must be below the size of the vocabulary, labels below the number of classes, and sequences no longer than the positions the model has.',
  },
  {
    match: /Non-zero status code returned while running (\S+) node\. Name:'([^']*)'/,
    code: 'E_RUNTIME',
    message: (m) => `Node '${m[2]}' (${m[1]}) failed`,
    remedy: 'Check that the shapes of the inputs fit together.',
  },
  {
    match: /No resident tensor '([^']*)'/,
    code: 'E_NO_MATCH',
    message: (m) => `No tensor is resident under '${m[1]}'`,
    remedy: 'Put it into the session host first.',
  },
  {
    match: /File doesn't exist|NO_SUCHFILE/i,
    code: 'E_IO',
    message: () => 'The model file does not exist',
    remedy: 'Check the path.',
  },
  {
    match: /external data|External data|model_path must not be empty|GetFileLength|External initializer/i,
    code: 'E_EXTERNAL_DATA',
    message: () => 'The external data of the model could not be read',
    remedy: 'Keep the data file next to the model, under the name the model refers to.',
  },
  {
    match: /INVALID_PROTOBUF|Protobuf parsing failed|INVALID_GRAPH|Load model .*failed/i,
    code: 'E_INVALID_GRAPH',
    message: () => 'ONNX Runtime refused the model',
    remedy: 'Check the model with `peft-compile inspect`.',
  },
];

const DTYPE_NUMBERS: Readonly<Record<string, string>> = {
  '14': 'complex64',
  '15': 'complex128',
  '16': 'bfloat16',
  '17': 'float8e4m3fn',
  '18': 'float8e4m3fnuz',
  '19': 'float8e5m2',
  '20': 'float8e5m2fnuz',
};

/** The error for a message of ONNX Runtime; the original words are always part of it. */
export function ortError(
  said: string,
  where: string,
  provider: ExecutionProvider = providerOf(),
): PeftCompileError {
  for (const rule of RULES) {
    const match = said.match(rule.match);
    if (match !== null)
      return new PeftCompileError(rule.code, {
        message: `${rule.message(match, provider)}; ONNX Runtime said: ${firstLine(said)}`,
        where,
        remedy: typeof rule.remedy === 'string' ? rule.remedy : rule.remedy(provider),
      });
  }
  return new PeftCompileError('E_RUNTIME', {
    message: `ONNX Runtime failed: ${firstLine(said)}`,
    where,
    remedy: 'If the model is sound, report this with the model and the inputs.',
  });
}

function firstLine(text: string): string {
  // Assertions quote their place and condition before they say what is wrong.
  const said = text.replace(/\/onnxruntime_src\/[\s\S]*? was (?:false|true)\. /, '');
  const line = said.trim().split('\n')[0] ?? '';
  return line.length > 600 ? `${line.slice(0, 600)}…` : line;
}
