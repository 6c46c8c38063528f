import { readFileSync } from 'node:fs';
import type { ServerResponse } from 'node:http';

/** The chat page: plain files, nothing from elsewhere. */
const FILES: Record<string, { file: string; type: string }> = {
  '/': { file: 'index.html', type: 'text/html; charset=utf-8' },
  '/chat.css': { file: 'chat.css', type: 'text/css; charset=utf-8' },
  '/chat.js': { file: 'chat.js', type: 'text/javascript; charset=utf-8' },
};
const FOLDER = new URL('../../web/chat/', import.meta.url);

/** The page runs its own script, talks to its own server, and may be shown in no frame. */
const POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "connect-src 'self'",
  "img-src 'self' data:",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ');

export const PAGE_PATHS = Object.keys(FILES);

/** Answers with a file of the chat page. */
export function sendPage(response: ServerResponse, path: string): void {
  const { file, type } = FILES[path]!;
  const content = readFileSync(new URL(file, FOLDER));
  response.writeHead(200, {
    'content-type': type,
    'content-length': content.length,
    'cache-control': 'no-cache',
    'content-security-policy': POLICY,
    'referrer-policy': 'no-referrer',
    'x-content-type-options': 'nosniff',
  });
  response.end(content);
}
