/** Types of PEFT that are not read, and why. Those of peft 0.21 that have no method are all here. */

const IN_PYTHON = 'merge it in Python (merge_and_unload) and export that model instead';
const DATA = 'what it adds depends on the input, which no weight does; serve it with PEFT';

/** By `peft_type`. */
export const UNREADABLE: Readonly<Record<string, string>> = {
  ADAMSS: `Which rows belong to which of its factors a random clustering of the base decides, which no file holds; ${IN_PYTHON}`,
  PSOFT: `It rotates singular vectors of the base, whose signs no file holds and every library chooses by itself; ${IN_PYTHON}`,
  POLY: `It routes by task: ${DATA}`,
  LILY: `It routes by input: ${DATA}`,
  XLORA: `It mixes adapters by input: ${DATA}`,
  SHADOW: `It carries a state through the layers: ${DATA}`,
  ADAPTION_PROMPT: `It attends to prompts of its own in every layer: ${DATA}`,
};

/** What to do about a type; undefined for those that nothing is known about. */
export function unreadable(type: string): string | undefined {
  return UNREADABLE[type];
}
