import { defineConfig } from 'vitest/config';

/** Tests that take long or need much disk; they run on the built package (`npm run test:slow`). */
export default defineConfig({
  test: {
    include: ['test/slow/**/*.test.ts'],
    testTimeout: 600_000,
    pool: 'forks',
  },
});
