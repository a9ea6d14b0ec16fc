/** Trains the step graph of the quickstart's model in a page, and draws the loss. */
import { Tokenizer } from '@huggingface/tokenizers';
import * as ort from 'onnxruntime-web/webgpu';
import { Collator, type Example, StepDriver, type StepManifest } from '../../runtime/browser/index.js';

const ROWS = 4;
const LENGTH = 64;

const form = element('form', HTMLFormElement);
const status = element('#status', HTMLElement);
const curve = element('#curve', SVGSVGElement);
const download = element('#download', HTMLAnchorElement);

form.addEventListener('submit', (event) => {
  event.preventDefault();
  const settings = new FormData(form);
  const button = element('button', HTMLButtonElement);
  button.disabled = true;
  train(String(settings.get('ep')), Number(settings.get('steps')))
    .catch((error: unknown) => say(error instanceof Error ? error.message : String(error), 'failed'))
    .finally(() => {
      button.disabled = false;
    });
});

async function train(ep: string, steps: number): Promise<void> {
  say('Loading the graph and the text …', 'loading');
  const [manifest, step, initial, text, tokenizer] = await Promise.all([
    fetched(`/artifacts/${ep}/manifest.json`).then((response) => response.json() as Promise<StepManifest>),
    bytes(`/artifacts/${ep}/step.onnx`),
    bytes(`/artifacts/${ep}/initial.safetensors`),
    fetched('/fixtures/quickstart/train.txt').then((response) => response.text()),
    fetched('/fixtures/quickstart/tokenizer.json').then((response) => response.json() as Promise<object>),
  ]);
  const examples = windows(new Tokenizer(tokenizer, {}).encode(text).ids);
  const collator = new Collator(manifest.batch);
  const driver = await StepDriver.open(
    ort,
    { manifest, graphs: { step }, initial },
    { session: { executionProviders: [ep] }, totalSteps: steps },
  );
  const losses: number[] = [];
  const start = performance.now();
  for (let i = 0; i < steps; i++) {
    const rows = Array.from(
      { length: ROWS },
      (_, row) => examples[(i * ROWS + row) % examples.length] as Example,
    );
    const { loss } = await driver.step([collator.batch(rows).feeds]);
    losses.push(loss);
    draw(losses, steps);
    const rate = ((i + 1) * ROWS * LENGTH * 1000) / (performance.now() - start);
    say(
      `Step ${i + 1} of ${steps}: loss ${loss.toFixed(3)}, ${rate.toFixed(0)} tokens a second on ${ep}`,
      'training',
    );
    // The page draws between steps.
    await new Promise(requestAnimationFrame);
  }
  offer(await driver.adapterFile());
  await driver.close();
  document.body.dataset.losses = JSON.stringify(losses);
  document.body.dataset.state = 'done';
}

/** The text in pieces of `LENGTH` tokens, spread over all of it. */
function windows(ids: readonly number[]): Example[] {
  const count = Math.floor(ids.length / LENGTH);
  return Array.from({ length: count }, (_, i) => {
    const at = ((i * 37) % count) * LENGTH;
    const values = ids.slice(at, at + LENGTH);
    const tokens = { dims: [LENGTH], values };
    // The loss shifts them by one.
    return { tensors: new Map(Object.entries({ input_ids: tokens, labels: tokens })), where: `token ${at}` };
  });
}

function draw(losses: readonly number[], steps: number): void {
  const top = Math.max(...losses);
  const bottom = Math.min(...losses);
  const span = Math.max(top - bottom, 1e-3);
  curve.setAttribute('viewBox', '0 0 100 100');
  const line = document.createElementNS('http://www.w3.org/2000/svg', 'polyline');
  const at = (loss: number, i: number) =>
    `${(100 * i) / Math.max(1, steps - 1)},${5 + (90 * (top - loss)) / span}`;
  line.setAttribute('points', losses.map(at).join(' '));
  curve.replaceChildren(line);
}

function offer(file: Uint8Array<ArrayBuffer>): void {
  download.href = URL.createObjectURL(new Blob([file]));
  download.hidden = false;
}

function say(text: string, state: string): void {
  status.textContent = text;
  document.body.dataset.state = state;
}

async function fetched(path: string): Promise<Response> {
  const response = await fetch(path);
  if (!response.ok) throw new Error(`${path}: ${response.status} ${response.statusText}`);
  return response;
}

async function bytes(path: string): Promise<Uint8Array> {
  return new Uint8Array(await (await fetched(path)).arrayBuffer());
}

function element<T extends Element>(selector: string, type: new () => T): T {
  const found = document.querySelector(selector);
  if (!(found instanceof type)) throw new Error(`The page has no ${selector}`);
  return found;
}
