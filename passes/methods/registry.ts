/** The methods that ship with the package. A method of one's own is passed as an object instead of an id. */
import { fail } from '../../src/errors.js';
import { didYouMean } from '../../src/nearest.js';
import adalora from './adalora.js';
import bitfit from './bitfit.js';
import compacter from './compacter.js';
import type { Method } from './contract/method.js';
import dora from './dora.js';
import { FILE_METHODS } from './from-files.js';
import full from './full.js';
import hiwi from './hiwi.js';
import houlsby from './houlsby.js';
import ia3 from './ia3.js';
import krona from './krona.js';
import lnTuning from './ln-tuning.js';
import loha from './loha.js';
import lokr from './lokr.js';
import lora from './lora.js';
import loraXs from './lora-xs.js';
import pTuning from './p-tuning.js';
import pafi from './pafi.js';
import parallel from './parallel.js';
import pfeiffer from './pfeiffer.js';
import prefix from './prefix.js';
import prompt from './prompt.js';
import vbLora from './vb-lora.js';
import vera from './vera.js';

export const METHODS: readonly Method[] = [
  lora,
  adalora,
  ia3,
  bitfit,
  lnTuning,
  full,
  hiwi,
  pafi,
  dora,
  loha,
  lokr,
  krona,
  houlsby,
  pfeiffer,
  parallel,
  compacter,
  prefix,
  prompt,
  pTuning,
  vera,
  loraXs,
  vbLora,
];

/**
 * The method itself, or the one of that id: of one's own first, then of those shipped. Throws E_NO_MATCH with the
 * nearest id.
 */
export function resolveMethod(method: Method | string, own: readonly Method[] = []): Method {
  if (typeof method !== 'string') return method;
  const known = [...own, ...METHODS, ...FILE_METHODS].flatMap((one) => [one, ...simplerThan(one)]);
  return (
    known.find(({ id }) => id === method) ??
    fail('E_NO_MATCH', {
      message: `There is no method '${method}'`,
      remedy: didYouMean(
        method,
        known.map(({ id }) => id),
      ),
    })
  );
}

/** What sites of a method may collapse to: records of saved adapters name it, whoever registered it. */
function simplerThan({ sites }: Method): Method[] {
  return Object.values(sites).flatMap(({ collapse }) => (collapse === undefined ? [] : [collapse.method]));
}
