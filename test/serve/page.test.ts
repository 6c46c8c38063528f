import { type Browser, chromium, type Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { findBrowser } from './browser.js';
import { startServer } from './child.js';
import { PIECES, REPLY, serveScript, until } from './server.js';
import { makeTinyModel, removeModel } from './tiny-model.js';

const found = findBrowser();
if ('missing' in found) console.warn(`chat page not tested: ${found.missing}`);

describe('the files of the chat page', () => {
  it('come with a policy that lets nothing from elsewhere in', async () => {
    const { url } = await serveScript();
    for (const path of ['/', '/chat.js', '/chat.css']) {
      const response = await fetch(`${url}${path}`);
      expect(response.status).toBe(200);
      const policy = response.headers.get('content-security-policy')!;
      expect(policy).toContain("default-src 'none'");
      expect(policy).not.toContain('unsafe');
      expect(await response.text()).not.toMatch(/https?:\/\/(?!www\.w3\.org)/);
    }
  });
});

describe.skipIf('missing' in found)('the chat page in Chromium', () => {
  let browser: Browser;
  beforeAll(async () => {
    const executablePath = 'path' in found ? found.path : '';
    browser = await chromium.launch({ executablePath, args: ['--no-sandbox'] });
  });
  afterAll(() => browser?.close());

  /** The page of a server, and what the browser complained about. */
  async function open(url: string): Promise<{ page: Page; complaints: string[] }> {
    const page = await browser.newPage();
    const complaints: string[] = [];
    page.on('pageerror', (error) => complaints.push(error.message));
    page.on('console', (message) => message.type() === 'error' && complaints.push(message.text()));
    await page.goto(url);
    onTestFinished(() => page.close());
    return { page, complaints };
  }

  async function say(page: Page, text: string): Promise<void> {
    await page.fill('#prompt', text);
    await page.press('#prompt', 'Enter');
  }

  it('streams an answer, keeps the conversation and shows the speed', async () => {
    const { engine, url } = await serveScript();
    const { page, complaints } = await open(url);
    await page.getByText('scripted · bf16 · context 512').waitFor();
    await say(page, 'Hi <b>there</b>');
    await page.locator('.message.assistant:not(.running)').waitFor();
    expect(await page.locator('.message').allTextContents()).toEqual(['Hi <b>there</b>', REPLY]);
    expect(await page.locator('#status').textContent()).toMatch(
      new RegExp(`^[\\d.]+ tokens/s · ${PIECES.length} tokens · first after \\d+ ms · \\d+ tokens read`),
    );
    await say(page, 'And now?');
    await until(() => engine.requests.length === 2);
    await page.locator('.message.assistant:not(.running)').nth(1).waitFor();
    expect(engine.requests[1]!.prompt.length).toBeGreaterThan(2 * engine.requests[0]!.prompt.length);
    expect(complaints).toEqual([]);
  });

  it('shows code in boxes and markup as text', async () => {
    const pieces = ['Run `ls`:\n``', '`sh\nls -l\n``', '`\n<img src=x onerror=alert(1)>'];
    const { url } = await serveScript({ pieces });
    const { page, complaints } = await open(url);
    await say(page, 'How?');
    await page.locator('.message.assistant:not(.running)').waitFor();
    expect(await page.locator('.message.assistant pre').textContent()).toBe('ls -l');
    expect(await page.locator('.message.assistant code').textContent()).toBe('ls');
    expect(await page.locator('.message img').count()).toBe(0);
    expect(complaints).toEqual([]);
  });

  it('stops when told, which frees the slot, and says what went wrong', async () => {
    const { engine, url } = await serveScript({ failAfter: 3 });
    const { page } = await open(url);
    engine.hold();
    await say(page, 'Hi');
    await until(() => engine.active === 1);
    await page.click('#stop');
    await until(() => engine.active === 0);
    engine.release();
    await say(page, 'Again');
    expect(await page.locator('.message.failed').textContent()).toContain('had an error');
  });

  it('continues a text where the model has no chat template', async () => {
    const { engine, url } = await serveScript({}, {}, false);
    const { page } = await open(url);
    await page.getByText('continues the text').waitFor();
    await say(page, 'Once');
    await page.locator('.message.assistant:not(.running)').waitFor();
    await page.click('#send');
    await until(() => engine.requests.length === 2);
    expect(engine.requests[1]!.prompt.length).toBeGreaterThan(engine.requests[0]!.prompt.length);
  });

  it('asks for the key where there is one', async () => {
    const { url } = await serveScript({}, { apiKey: 'sesame' });
    const { page } = await open(url);
    await page.locator('#settings').waitFor();
    await page.fill('#api-key', 'sesame');
    await page.press('#api-key', 'Tab');
    await page.getByText('scripted · bf16').waitFor();
    await say(page, 'Hi');
    await page.locator('.message.assistant:not(.running)').waitFor();
    expect(await page.locator('.message.assistant').textContent()).toBe(REPLY);
  });

  it('turns light and dark', async () => {
    const { url } = await serveScript();
    const { page } = await open(url);
    const back = () => page.evaluate('getComputedStyle(document.body).backgroundColor');
    const before = await back();
    await page.click('#theme');
    expect(await back()).not.toBe(before);
    await page.reload();
    expect(await back()).not.toBe(before);
  });

  /**
   * On a model and a process as a user has them. The picture in the README is made by
   * FATHOM_CHAT_MODEL=runs/mini FATHOM_CHAT_PICTURE=docs/images/chat.png vitest run test/serve/page.test.ts
   */
  it('talks to fathom serve', async () => {
    const given = process.env.FATHOM_CHAT_MODEL;
    const folder = given ?? makeTinyModel();
    const server = await startServer(folder);
    onTestFinished(async () => {
      server.child.kill('SIGTERM');
      await server.ended;
      if (given === undefined) removeModel(folder);
    });
    const { page, complaints } = await open(server.url);
    await page.setViewportSize({ width: 860, height: 520 });
    await page.click('#toggle-settings');
    for (const [field, value] of [
      ['#temperature', '0.6'],
      ['#top-p', '0.8'],
      ['#max-tokens', '90'],
      ['#seed', '5'],
    ])
      await page.fill(field!, value!);
    await page.click('#toggle-settings');
    await say(page, 'Fellow citizens, what is the state of the Union?');
    await page.locator('.message.assistant:not(.running)').waitFor();
    expect(await page.locator('#status').textContent()).toMatch(/tokens\/s · \d+ tokens · first after/);
    const picture = process.env.FATHOM_CHAT_PICTURE;
    expect((await page.screenshot(picture ? { path: picture } : {})).length).toBeGreaterThan(5000);
    expect(complaints).toEqual([]);
  });
});
