/** What a user sees of long work, on stderr: a bar on a terminal, plain lines otherwise. */
import { SingleBar } from 'cli-progress';
import pc from './colour.js';

/** How a command shows the work that it starts. */
export interface View<Event> {
  readonly onEvent: (event: Event) => void;
  close(): void;
}

export type ViewMode = 'progress' | 'silent';

export function viewOf<Event>(
  mode: ViewMode,
  bar: () => View<Event>,
  plain: (event: Event) => void,
): View<Event> {
  if (mode === 'silent') return { onEvent: () => {}, close: () => {} };
  return process.stderr.isTTY ? bar() : { onEvent: plain, close: () => {} };
}

/** A bar between two texts, which hold `{value}`, `{total}` and fields of their own. It may be stopped twice. */
export class Bar {
  readonly #bar: SingleBar;
  #running = false;

  constructor(before: string, after: string) {
    this.#bar = new SingleBar({
      format: `${before} ${pc.cyan('{bar}')} ${after}`,
      barCompleteChar: '█',
      barIncompleteChar: '░',
      barsize: 24,
      stream: process.stderr,
      clearOnComplete: true,
      gracefulExit: false,
    });
  }

  start(total: number, from: number, fields: Readonly<Record<string, string>>): void {
    this.#bar.start(total, from, fields);
    this.#running = true;
  }

  update(done: number, fields: Readonly<Record<string, string>>): void {
    this.#bar.update(done, fields);
  }

  /** Writes lines above the bar, which redraws below them. */
  above(write: () => void): void {
    process.stderr.write('\r\x1b[K');
    write();
    this.#bar.render();
  }

  stop(): void {
    if (this.#running) this.#bar.stop();
    this.#running = false;
  }
}
