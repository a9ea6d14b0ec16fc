/** What a user sees of a running evaluation: a bar on a terminal, a line per model otherwise. Everything goes to stderr. */
import { basename } from 'node:path';
import type { EvaluateListener } from '../../runtime/library/evaluate.js';
import { formatCount, warn } from './output.js';
import { progressBar } from './progress-bar.js';

export interface EvalView {
  readonly onEvent: EvaluateListener;
  close(): void;
}

export function evalView(mode: 'progress' | 'silent'): EvalView {
  if (mode === 'silent') return { onEvent: () => {}, close: () => {} };
  return process.stderr.isTTY ? barView() : plainView();
}

function barView(): EvalView {
  const bar = progressBar('{name} {value}/{total}', '{tokens} tokens/s  ETA {eta_formatted}');
  let running = false;
  const stop = () => {
    if (running) bar.stop();
    running = false;
  };
  return {
    onEvent: (event) => {
      if (event.type === 'start') {
        bar.start(event.examples, 0, { name: basename(event.name), tokens: '…' });
        running = true;
      } else if (event.type === 'batch')
        bar.update(event.done, { tokens: formatCount(Math.round(event.tokensPerSecond)) });
      else stop();
    },
    close: stop,
  };
}

function plainView(): EvalView {
  return {
    onEvent: (event) => {
      if (event.type === 'end')
        warn(
          `${event.name}: loss ${event.loss.toFixed(4)} over ${formatCount(event.examples)} examples in ${event.seconds.toFixed(1)} s`,
        );
    },
    close: () => {},
  };
}
