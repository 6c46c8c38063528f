import http from 'node:http';
import net from 'node:net';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PIECES, REPLY, type Served, serveScript, until } from './server.js';

/**
 * Sends bytes as they are.
 * @param ends whether the client says that nothing more will come
 * @returns all that comes back until the server closes
 */
function raw({ url }: Served, bytes: string | Buffer, ends = false): Promise<string> {
  const { hostname, port } = new URL(url);
  return new Promise((resolve) => {
    let answer = '';
    const socket = net.connect(Number(port), hostname, () => {
      if (ends) socket.end(bytes);
      else socket.write(bytes);
    });
    socket.setEncoding('latin1').on('data', (text: string) => (answer += text));
    socket.on('error', () => {}).on('close', () => resolve(answer));
  });
}

const statusOf = (answer: string): number => Number(/^HTTP\/1\.1 (\d{3})/.exec(answer)?.[1]);

/** A POST with a body as it is. */
const post = (body: string | Buffer, headers = 'Content-Type: application/json\r\n'): Buffer =>
  Buffer.concat([
    Buffer.from(
      `POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n${headers}` +
        `Content-Length: ${Buffer.byteLength(body)}\r\n\r\n`,
    ),
    Buffer.from(body),
  ]);

const HEAD = 'POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n';
const JSON_HEAD = `${HEAD}Content-Type: application/json\r\n`;

/** Requests that broke servers before, and the status that each must get. */
const BROKEN: [what: string, bytes: string | Buffer, status: number][] = [
  ['no HTTP', 'hello\r\n\r\n', 400],
  ['TLS', Buffer.from('160301020001000', 'hex'), 400],
  ['an unknown method', 'BREW / HTTP/1.1\r\nHost: localhost\r\n\r\n', 400],
  ['HTTP of the future', 'GET /health HTTP/9.9\r\nHost: localhost\r\n\r\n', 400],
  ['no host', 'GET /health HTTP/1.1\r\nConnection: close\r\n\r\n', 400],
  ['another host', 'GET /health HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n', 403],
  ['a header without end', `GET / HTTP/1.1\r\nHost: localhost\r\nX: ${'x'.repeat(20_000)}\r\n\r\n`, 431],
  ['two lengths', `${JSON_HEAD}Content-Length: 5\r\nContent-Length: 6\r\n\r\n{}`, 400],
  ['length and chunks', `${JSON_HEAD}Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`, 400],
  ['a negative length', `${JSON_HEAD}Content-Length: -1\r\n\r\n`, 400],
  ['a chunk of no size', `${JSON_HEAD}Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n`, 400],
  ['a length beyond the limit', `${JSON_HEAD}Content-Length: 99999999999\r\n\r\n`, 413],
  ['no type', post('{"prompt":"a"}', ''), 415],
  ['a form', post('prompt=a', 'Content-Type: application/x-www-form-urlencoded\r\n'), 415],
  ['text that is JSON', post('{"prompt":"a"}', 'Content-Type: text/plain\r\n'), 415],
  ['gzip', post('x', 'Content-Type: application/json\r\nContent-Encoding: gzip\r\n'), 415],
  ['nothing', post(''), 400],
  ['half of a JSON text', post('{"prompt":'), 400],
  ['a list', post('["prompt"]'), 400],
  ['null', post('null'), 400],
  ['a number', post('1e999'), 400],
  ['bytes that are not UTF-8', post(Buffer.from([0x7b, 0x22, 0xff, 0xfe, 0x22, 0x3a, 0x31, 0x7d])), 400],
  ['a NUL', post('{"prompt":"a"}\0'), 400],
  ['depth', post(`{"prompt":${'['.repeat(100_000)}${']'.repeat(100_000)}}`), 400],
  ['depth without end', post('['.repeat(1_000_000)), 400],
  ['a prototype', post('{"__proto__":{"prompt":"a"}}'), 400],
  ['a constructor', post('{"prompt":"a","constructor":{"prototype":{"x":1}}}'), 400],
  ['a number beyond integers', post('{"prompt":"a","seed":1e300}'), 400],
  ['infinity', post('{"prompt":"a","temperature":1e999}'), 400],
  ['an unpaired surrogate', post('{"prompt":"\\ud800"}'), 200],
  ['an escaped NUL', post('{"prompt":"\\u0000"}'), 200],
  ['a body twice the limit', post(`{"prompt":"${'a'.repeat(8 << 20)}"}`), 413],
  [
    'a path that climbs',
    'GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n',
    404,
  ],
  [
    'a path that is no text',
    'GET /v1/models/%ff%fe HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n',
    404,
  ],
  ['a whole URL', 'GET http://x/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n', 404],
];

describe('a broken request', () => {
  it('gets the right status and leaves the server as it was', async () => {
    const served = await serveScript();
    for (const [what, bytes, status] of BROKEN) {
      expect([what, statusOf(await raw(served, bytes))]).toEqual([what, status]);
    }
    expect(served.failures).toEqual([]);
    expect(served.engine.active).toBe(0);
    expect(
      (await served.client.completions.create({ model: 'scripted', prompt: 'a' })).choices[0]!.text,
    ).toBe(REPLY);
  });

  it('may end in mid-body', async () => {
    const served = await serveScript();
    expect(statusOf(await raw(served, `${JSON_HEAD}Content-Length: 100\r\n\r\n{"prompt"`, true))).toBe(400);
    const socket = net.connect(Number(new URL(served.url).port), '127.0.0.1');
    socket.write(`${JSON_HEAD}Content-Length: 100\r\n\r\n{"prompt"`, () => socket.resetAndDestroy());
    await until(() => served.server.requests === 2);
    expect(served.failures).toEqual([]);
  });
});

describe('a request that does not end', () => {
  it('is given up with 408, be it head or body', async () => {
    const served = await serveScript({}, { limits: { headSeconds: 0.1, receiveSeconds: 0.2 } });
    expect(statusOf(await raw(served, 'GET /health HTTP/1.1\r\nHost: localhost\r\nX-Slow: '))).toBe(408);
    expect(statusOf(await raw(served, `${JSON_HEAD}Content-Length: 100\r\n\r\n{"prompt"`))).toBe(408);
    expect((await fetch(`${served.url}/health`)).status).toBe(200);
  });
});

describe('fuzz', () => {
  const fields = [
    'prompt',
    'messages',
    'model',
    'max_tokens',
    'temperature',
    'top_p',
    'n',
    'stop',
    'stream',
    'logprobs',
  ];
  const more = [
    'logit_bias',
    'seed',
    'echo',
    'stream_options',
    'response_format',
    'tools',
    'chat_template_kwargs',
    'top_k',
  ];
  const plausible = fc.oneof(
    fc.constantFrom(0, 1, -1, 0.5, 2, 1e9, '', 'a', true, false, null, [], {}, [1, 2], ['a'], {
      include_usage: true,
    }),
    fc.constantFrom(
      [{ role: 'user', content: 'a' }],
      { type: 'text' },
      { 5: 1 },
      { 5: 'x' },
      [[1], [2]],
      [['a']],
    ),
    fc.jsonValue(),
  );
  const body = fc.dictionary(fc.constantFrom(...fields, ...more), plausible, { maxKeys: 6 });

  it.each(['completions', 'chat/completions'])(
    'answers any body, whole or as a stream: /v1/%s',
    async (path) => {
      const served = await serveScript();
      const statuses = new Set<number>();
      await fc.assert(
        fc.asyncProperty(
          fc.oneof(
            body,
            body.map((b) => ({ prompt: 'a', ...b })),
          ),
          async (value) => {
            const response = await fetch(`${served.url}/v1/${path}`, {
              method: 'POST',
              headers: { 'content-type': 'application/json' },
              body: JSON.stringify(value),
            });
            const text = await response.text();
            statuses.add(response.status);
            expect([200, 400, 404]).toContain(response.status);
            if (response.status !== 200) expect(JSON.parse(text).error.message).toEqual(expect.any(String));
          },
        ),
        { numRuns: 200 },
      );
      expect(statuses).toContain(400);
      expect(served.failures).toEqual([]);
      expect(served.engine.active).toBe(0);
    },
  );

  it('answers any bytes', async () => {
    const served = await serveScript();
    const bytes = fc.uint8Array({ maxLength: 200 });
    await fc.assert(
      fc.asyncProperty(bytes, fc.boolean(), async (content, isBody) => {
        await raw(served, isBody ? post(Buffer.from(content)) : Buffer.from(content), true);
      }),
      { numRuns: 200 },
    );
    expect((await fetch(`${served.url}/health`)).status).toBe(200);
    expect(served.failures).toEqual([]);
  });
});

describe('a slow reader', () => {
  /** Much more than the buffers of both sides hold. */
  const pieces = Array.from({ length: 400 }, () => 'x'.repeat(100_000));
  const request = JSON.stringify({ prompt: 'a', max_tokens: 500, stream: true });

  /** Sends the request, reads the head and then nothing. */
  function stall({ url }: Served): Promise<{ response: http.IncomingMessage; request: http.ClientRequest }> {
    return new Promise((resolve, reject) => {
      const headers = { 'content-type': 'application/json', connection: 'close' };
      const sent = http.request(`${url}/v1/completions`, { method: 'POST', headers }, (response) =>
        resolve({ response: response.pause(), request: sent }),
      );
      sent.on('error', reject).end(request);
    });
  }

  it('holds its own answer back, and nothing else', async () => {
    const served = await serveScript({ pieces, contextTokens: 1000 });
    const { response } = await stall(served);
    // Others are served meanwhile, and what waits for the slow one does not grow.
    const other = await served.client.completions.create({ model: 'scripted', prompt: 'a', max_tokens: 2 });
    expect(other.choices[0]!.text).toHaveLength(200_000);
    expect(served.engine.active).toBe(1);
    expect(served.engine.generated).toBeLessThan(pieces.length);
    let length = 0;
    for await (const chunk of response) length += (chunk as Buffer).length;
    expect(length).toBeGreaterThan(40e6);
    await until(() => served.engine.active === 0);
  });

  it('is given up when it takes nothing at all', async () => {
    const served = await serveScript({ pieces, contextTokens: 1000 }, { limits: { stallSeconds: 0.1 } });
    const { response } = await stall(served);
    response.on('error', () => {});
    await until(() => served.engine.active === 0);
    expect(served.engine.generated).toBeLessThan(pieces.length);
    response.destroy();
  });
});

describe('shutting down', () => {
  it('finishes what runs, refuses what comes, and then ends', async () => {
    const { server, engine, client, url } = await serveScript();
    engine.hold();
    const running = client.completions.create({ model: 'scripted', prompt: 'a' });
    const stream = client.completions.create({ model: 'scripted', prompt: 'a', stream: true });
    await until(() => engine.active === 2);
    expect(await (await fetch(`${url}/health`)).json()).toEqual({ status: 'ok', running: 2, waiting: 0 });
    const drained = server.drain();
    await expect(fetch(`${url}/health`)).rejects.toThrow();
    engine.release();
    expect((await running).choices[0]!.text).toBe(REPLY);
    let pieces = 0;
    for await (const chunk of await stream) pieces += chunk.choices[0]!.text === '' ? 0 : 1;
    expect(pieces).toBe(PIECES.length);
    await drained;
  });
});
