/** The example page in headless Chromium, on WebAssembly and on WebGPU through SwiftShader. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { type Browser, chromium } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Example, serveExample } from '../../examples/browser/serve.js';
import { repositoryRoot } from '../helpers/fixtures.js';

const PATHS = [
  process.env.CHROMIUM,
  '/usr/bin/chromium',
  '/usr/bin/chromium-browser',
  '/usr/bin/google-chrome',
];
const executablePath = PATHS.find((path) => path !== undefined && existsSync(path));
const built = existsSync(join(repositoryRoot, 'dist/examples/browser/page.js'));
const missing = [
  ...(executablePath === undefined ? ['Chromium is not installed (apt-get install chromium)'] : []),
  ...(built ? [] : ['the page is not built (npm run build)']),
].join('; ');

/** A GPU in software compiles its shaders slowly. */
const PATIENCE = 240_000;

/** A software GPU, in a sandbox-less container. */
const FLAGS = [
  '--no-sandbox',
  '--enable-unsafe-webgpu',
  '--use-webgpu-adapter=swiftshader',
  '--enable-features=Vulkan',
  '--use-vulkan=swiftshader',
  '--use-angle=swiftshader',
];

describe.skipIf(missing !== '')(
  `the example page${missing === '' ? '' : ` (skipped: ${missing})`}`,
  { timeout: PATIENCE },
  () => {
    let browser: Browser;
    let example: Example;
    beforeAll(async () => {
      example = await serveExample(0);
      browser = await chromium.launch({ executablePath: executablePath as string, args: FLAGS });
    }, 60_000);
    afterAll(async () => {
      await browser?.close();
      await example?.close();
    });

    async function losses(ep: string, steps: number): Promise<number[]> {
      const page = await browser.newPage();
      const errors: string[] = [];
      page.on('pageerror', (error) => errors.push(error.message));
      await page.goto(example.url);
      await page.selectOption('select[name=ep]', ep);
      await page.fill('input[name=steps]', String(steps));
      await page.click('button');
      await page.waitForSelector('body[data-state=done], body[data-state=failed]', { timeout: PATIENCE });
      expect(errors).toEqual([]);
      expect(await page.textContent('#status')).toContain(`Step ${steps} of ${steps}`);
      expect((await page.getAttribute('#curve polyline', 'points'))?.split(' ')).toHaveLength(steps);
      expect(await page.isVisible('#download')).toBe(true);
      const found = JSON.parse((await page.getAttribute('body', 'data-losses')) ?? '[]') as number[];
      await page.close();
      return found;
    }

    it('learns on WebAssembly, draws the curve and offers the adapter', async () => {
      const found = await losses('wasm', 8);
      expect(found).toHaveLength(8);
      expect(found.at(-1)).toBeLessThan(found[0]! - 0.1);
    });

    it('gets the same losses from WebGPU, with its state on the GPU', async () => {
      const [cpu, gpu] = [await losses('wasm', 3), await losses('webgpu', 3)];
      expect(cpu[2]).not.toBe(cpu[0]);
      expect(gpu).toHaveLength(3);
      for (const [i, loss] of gpu.entries()) expect(Math.abs(loss - cpu[i]!)).toBeLessThan(1e-4 * cpu[i]!);
    });
  },
);
