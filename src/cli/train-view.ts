/** What a user sees of a running training: a bar on a terminal, plain lines otherwise. */
import type { TrainEvent } from '../../runtime/train/events.js';
import pc from './colour.js';
import { formatCount, warn } from './output.js';
import { Bar, type View, type ViewMode, viewOf } from './progress-bar.js';

/** Plain lines appear about this many times per run. */
const PLAIN_LINES = 20;

export function trainView(mode: ViewMode): View<TrainEvent> {
  return viewOf(mode, barView, plainLine);
}

function barView(): View<TrainEvent> {
  const bar = new Bar('step {value}/{total}', 'loss {loss}  {tokens} tokens/s  ETA {left}');
  return {
    onEvent: (event) => {
      if (event.type === 'start') {
        announce(event);
        bar.start(event.totalSteps, event.resumedFrom, { loss: '…', tokens: '…', left: '…' });
      } else if (event.type === 'step')
        bar.update(event.step, {
          loss: event.loss.toFixed(4),
          tokens: formatCount(Math.round(event.tokensPerSecond)),
          left: duration(event.eta),
        });
      else if (event.type === 'end') bar.stop();
      else bar.above(() => describe(event));
    },
    close: () => bar.stop(),
  };
}

function plainLine(event: TrainEvent): void {
  if (event.type === 'start') announce(event);
  else if (event.type !== 'step') describe(event);
  else {
    const every = Math.max(1, Math.ceil(event.totalSteps / PLAIN_LINES));
    if (event.step % every !== 0 && event.step !== 1 && event.step !== event.totalSteps) return;
    warn(
      `step ${event.step}/${event.totalSteps}  loss ${event.loss.toFixed(4)}  lr ${event.lr.toExponential(2)}  ${formatCount(Math.round(event.tokensPerSecond))} tokens/s  ETA ${duration(event.eta)}`,
    );
  }
}

function announce(event: Extract<TrainEvent, { type: 'start' }>): void {
  const resumed = event.resumedFrom > 0 ? `, continuing after step ${event.resumedFrom}` : '';
  warn(
    `${formatCount(event.trainable)} trainable weights, ${formatCount(event.examples)} examples, ${event.totalSteps} steps${resumed}`,
  );
}

function describe(event: TrainEvent): void {
  if (event.type === 'eval') {
    const perplexity = event.perplexity === undefined ? '' : `  perplexity ${event.perplexity.toFixed(2)}`;
    const metrics = Object.entries(event.metrics)
      .map(([name, value]) => `  ${name} ${value.toFixed(4)}`)
      .join('');
    warn(
      `eval at step ${event.step}: loss ${event.loss.toFixed(4)}${perplexity}${metrics}${event.best ? '  (best)' : ''}`,
    );
  } else if (event.type === 'checkpoint') warn(pc.dim(`checkpoint ${event.path}`));
}

/** `1:05` minutes and seconds, `2:01:05` with hours. */
function duration(seconds: number): string {
  if (!Number.isFinite(seconds)) return '…';
  const whole = Math.max(0, Math.round(seconds));
  const parts = [Math.floor(whole / 3600), Math.floor((whole % 3600) / 60), whole % 60];
  const shown = parts[0] === 0 ? parts.slice(1) : parts;
  return shown.map((part, index) => (index === 0 ? `${part}` : String(part).padStart(2, '0'))).join(':');
}
