/** Text from a causal language model, by re-running it on the whole sequence: to see what a small model writes. */
import { randomStream } from '../src/initializer.js';
import type { TextTokenizer } from './data/tokenizer.js';
import { numbersOf, tensorOfNumbers } from './host-tensor.js';
import type { Session } from './session.js';

export interface GenerateOptions {
  readonly prompt: string;
  readonly tokens: number;
  /** Divides the scores; near 0 is greedy. Default 0.8. */
  readonly temperature?: number;
  /** Sample among this many best tokens. Default 40. */
  readonly topK?: number;
  /** Default 0. */
  readonly seed?: number;
}

/**
 * Samples a continuation of the prompt. The model reads `input_ids` and, where it has them, `attention_mask` and
 * `position_ids`, int64 [1, sequence]; its first output is scores float32 [1, sequence, vocab].
 */
export async function generate(
  session: Session,
  tokenizer: TextTokenizer,
  { prompt, tokens, temperature = 0.8, topK = 40, seed = 0 }: GenerateOptions,
): Promise<string> {
  const ids = [...tokenizer.encodePlain(prompt)];
  const random = randomStream(seed, prompt);
  const inputs: Readonly<Record<string, (index: number) => number>> = {
    input_ids: (index) => ids[index] ?? 0,
    attention_mask: () => 1,
    position_ids: (index) => index,
  };
  for (let made = 0; made < tokens; made++) {
    const feeds = Object.fromEntries(
      session.inputs.map(({ name }) => [
        name,
        tensorOfNumbers(
          'int64',
          [1, ids.length],
          ids.map((_, index) => inputs[name]?.(index) ?? 0),
        ),
      ]),
    );
    const [scores] = Object.values(await session.run(feeds));
    if (scores === undefined) break;
    const vocab = scores.dims.at(-1) ?? 0;
    const last = Array.from(numbersOf(scores).slice(-vocab));
    ids.push(sample(last, temperature, topK, random));
  }
  return tokenizer.decode(ids);
}

/** Index drawn from softmax(scores / temperature) over the `topK` best. */
function sample(scores: readonly number[], temperature: number, topK: number, random: () => number): number {
  const best = scores
    .map((score, index) => ({ score, index }))
    .sort((a, b) => b.score - a.score)
    .slice(0, topK);
  const top = best[0]?.score ?? 0;
  const weights = best.map(({ score }) => Math.exp((score - top) / temperature));
  let left = random() * weights.reduce((sum, weight) => sum + weight, 0);
  for (const [rank, weight] of weights.entries()) {
    left -= weight;
    if (left <= 0) return best[rank]?.index ?? 0;
  }
  return best[0]?.index ?? 0;
}
