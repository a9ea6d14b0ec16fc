/** The bar that long work draws on stderr. */
import { SingleBar } from 'cli-progress';
import pc from './colour.js';

/** A bar between two texts, which hold `{value}`, `{total}` and fields of their own. */
export function progressBar(before: string, after: string): SingleBar {
  return new SingleBar({
    format: `${before} ${pc.cyan('{bar}')} ${after}`,
    barCompleteChar: '█',
    barIncompleteChar: '░',
    barsize: 24,
    stream: process.stderr,
    clearOnComplete: true,
    gracefulExit: false,
  });
}
