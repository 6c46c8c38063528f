import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    globalSetup: ['test/global-setup.ts'],
    testTimeout: 60_000,
    // Two cores, and the native addon brings its own threads: one file at a time keeps runs steady.
    fileParallelism: false,
    pool: 'forks',
  },
});
