/** What a user sees of a running evaluation: a bar on a terminal, a line per model otherwise. */
import { basename } from 'node:path';
import type { EvaluateEvent } from '../../runtime/library/evaluate.js';
import { formatCount, warn } from './output.js';
import { Bar, type View, type ViewMode, viewOf } from './progress-bar.js';

export function evalView(mode: ViewMode): View<EvaluateEvent> {
  return viewOf(mode, barView, describe);
}

function barView(): View<EvaluateEvent> {
  const bar = new Bar('{name} {value}/{total}', '{tokens} tokens/s  ETA {eta_formatted}');
  return {
    onEvent: (event) => {
      if (event.type === 'start') bar.start(event.examples, 0, { name: basename(event.name), tokens: '…' });
      else if (event.type === 'batch')
        bar.update(event.done, { tokens: formatCount(Math.round(event.tokensPerSecond)) });
      else bar.stop();
    },
    close: () => bar.stop(),
  };
}

function describe(event: EvaluateEvent): void {
  if (event.type === 'end')
    warn(
      `${event.name}: loss ${event.loss.toFixed(4)} over ${formatCount(event.examples)} examples in ${event.seconds.toFixed(1)} s`,
    );
}
