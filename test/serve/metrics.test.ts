import { expect, it } from 'vitest';
import { PIECES, serveScript, until } from './server.js';

/** The samples of a text in Prometheus' format. */
const samples = (text: string): Map<string, number> =>
  new Map(
    text
      .split('\n')
      .filter((line) => line !== '' && !line.startsWith('#'))
      .map((line) => [line.slice(0, line.lastIndexOf(' ')), Number(line.slice(line.lastIndexOf(' ') + 1))]),
  );

it('counts what was asked, answered, generated and waited for', async () => {
  const { client, engine, url } = await serveScript({}, { maxBatch: 1, maxQueue: 1 });
  await client.completions.create({ model: 'scripted', prompt: 'a', n: 2 });
  await client.completions.create({ model: 'gpt', prompt: 'a' }).catch(() => {});
  engine.hold();
  const controller = new AbortController();
  const gone = client.completions.create({ model: 'scripted', prompt: 'a' }, { signal: controller.signal });
  gone.catch(() => {});
  await until(() => engine.active === 1);
  const response = await fetch(`${url}/metrics`);
  expect(response.headers.get('content-type')).toMatch(/^text\/plain; version=0\.0\.4/);
  const during = samples(await response.text());
  controller.abort();
  await until(() => engine.active === 0);
  const after = samples(await (await fetch(`${url}/metrics`)).text());

  const endpoint = 'endpoint="/v1/completions"';
  expect(during.get(`fathom_requests_total{${endpoint},status="200"}`)).toBe(1);
  expect(during.get(`fathom_requests_total{${endpoint},status="404"}`)).toBe(1);
  expect(during.get('fathom_requests_running')).toBe(1);
  expect(during.get('fathom_generated_tokens_total')).toBe(2 * PIECES.length);
  expect(during.get('fathom_time_to_first_token_seconds_count')).toBe(2);
  expect(during.get('fathom_time_per_output_token_seconds_count')).toBe(2);
  expect(during.get('fathom_cache_pages')).toBe(256);
  expect(during.get('fathom_cache_bytes_per_token')).toBe(288);
  expect(during.get('process_resident_memory_bytes')).toBeGreaterThan(0);
  expect(after.get(`fathom_requests_total{${endpoint},status="499"}`)).toBe(1);
  expect(after.get('fathom_requests_running')).toBe(0);
  // Read twice, counted once.
  expect(after.get('fathom_generated_tokens_total')).toBe(2 * PIECES.length);
});
