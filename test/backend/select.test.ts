import { afterEach, describe, expect, it, vi } from 'vitest';

/** `selectBackend` of a process in which the addon loads or does not. */
async function withAddon(addon: object | undefined) {
  vi.resetModules();
  vi.doMock('../../src/backend/native/addon.js', async (original) => ({
    ...(await original<object>()),
    loadAddon: () => addon,
    addonProblem: () => '/somewhere/fathom.node does not exist',
  }));
  return (await import('../../src/backend/select.js')).selectBackend;
}

describe('selectBackend', () => {
  afterEach(() => {
    vi.doUnmock('../../src/backend/native/addon.js');
    vi.restoreAllMocks();
  });

  it('sets the threads of the native backend', async () => {
    const setThreads = vi.fn();
    const selectBackend = await withAddon({ setThreads });
    expect(selectBackend('auto', 3).name).toBe('native');
    expect(setThreads).toHaveBeenCalledExactlyOnceWith(3);
    expect(selectBackend('reference').name).toBe('reference');
  });

  it('falls back with one line on stderr, once', async () => {
    const write = vi.spyOn(process.stderr, 'write').mockReturnValue(true);
    const selectBackend = await withAddon(undefined);
    expect(selectBackend('auto').name).toBe('reference');
    expect(selectBackend('auto').name).toBe('reference');
    expect(write).toHaveBeenCalledOnce();
    expect(write.mock.calls[0]![0]).toMatch(/^fathom: .*does not exist.*npm run build:native\n$/);
  });

  it('says how to get a native backend that was asked for', async () => {
    const selectBackend = await withAddon(undefined);
    const missing = /no native backend: .*fathom.node does not exist; build it with: npm run build:native/;
    expect(() => selectBackend('native')).toThrow(missing);
  });

  it.each([0, -1, 1.5, Number.NaN, 2000])('refuses %d threads', async (threads) => {
    const selectBackend = await withAddon(undefined);
    expect(() => selectBackend('reference', threads)).toThrow(
      /threads is .*: give a whole number from 1 to 1024/,
    );
  });
});
