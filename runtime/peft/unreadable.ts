/** Types of PEFT that are not read, and why. */

const RANDOM =
  "its files lack what PEFT draws again from torch's random generator; merge it in Python (merge_and_unload) and export that model instead";
const SVD =
  'its files lack what PEFT computes again from the base by a singular value decomposition; merge it in Python (merge_and_unload) and export that model instead';
const DATA = 'what it adds depends on the input, which no weight does; serve it with PEFT';

const REASONS: Readonly<Record<string, string>> = {
  FOURIERFT: `The places of its frequencies are not stored: ${RANDOM}`,
  WAVEFT: `The places of its coefficients are not stored: ${RANDOM}`,
  UNILORA: `The places of its parameters are not stored: ${RANDOM}`,
  TINYLORA: SVD,
  OSF: SVD,
  PSOFT: SVD,
  FROD: RANDOM,
  POLY: `It routes by task: ${DATA}`,
  LILY: `It routes by input: ${DATA}`,
  XLORA: `It mixes adapters by input: ${DATA}`,
  SHADOW: `It carries a state through the layers: ${DATA}`,
  ADAPTION_PROMPT: `It attends to prompts: ${DATA}`,
  CARTRIDGE: `It is a cache of keys and values: ${DATA}`,
  MULTITASK_PROMPT_TUNING: 'Its prompts are by task; save the prompt of one task as PROMPT_TUNING',
};

/** What to do about a type; undefined for those that nothing is known about. */
export function unreadable(type: string): string | undefined {
  return REASONS[type];
}
