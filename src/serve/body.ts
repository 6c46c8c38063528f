import type { IncomingMessage } from 'node:http';
import { ApiError, badRequest } from './errors.js';
import { ClientGone } from './exchange.js';

/**
 * The JSON object that a request carries.
 * @param maxBytes a longer body is refused with 413, before it has been received where its length is announced
 * @throws ApiError what is wrong with the body
 */
export async function readJson(request: IncomingMessage, maxBytes: number): Promise<object> {
  checkType(request);
  const bytes = await readBody(request, maxBytes).catch((error) => {
    throw error instanceof ApiError ? error : new ClientGone();
  });
  const value = parse(bytes);
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value;
  throw badRequest('The body of the request must be a JSON object.');
}

/**
 * A browser sends JSON to another origin only when that origin allows it, but sends text without asking: to insist on the
 * type keeps foreign pages out.
 */
function checkType(request: IncomingMessage): void {
  const type = (request.headers['content-type'] ?? '').split(';')[0]!.trim().toLowerCase();
  if (type !== 'application/json') {
    throw new ApiError(
      415,
      `The body must be JSON with the header Content-Type: application/json, not ${type || 'none'}.`,
    );
  }
  const encoding = request.headers['content-encoding'];
  if (encoding && encoding !== 'identity')
    throw new ApiError(415, `Content-Encoding ${encoding} is not supported; send the body as it is.`);
}

async function readBody(request: IncomingMessage, maxBytes: number): Promise<Buffer> {
  if (Number(request.headers['content-length'] ?? 0) > maxBytes) throw tooLarge(maxBytes);
  const chunks: Buffer[] = [];
  let length = 0;
  // What is left of a body that is refused is read and dropped by Node, so that the client gets to see the answer.
  for await (const chunk of request.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length > maxBytes) throw tooLarge(maxBytes);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks, length);
}

const tooLarge = (maxBytes: number): ApiError =>
  new ApiError(413, `The body is longer than the ${maxBytes} bytes that this server takes.`, {
    code: 'request_too_large',
  });

function parse(bytes: Buffer): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (error) {
    throw badRequest(`The body of the request is not valid JSON: ${(error as Error).message}`);
  }
}
