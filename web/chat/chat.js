/**
 * The chat page: a conversation with the model of this server through its own OpenAI endpoints, streamed.
 * Model text reaches the page as text nodes only, never as markup.
 */

/** @typedef {{ role: 'user' | 'assistant', content: string }} Turn */
/** @typedef {{ id: string, max_model_len: number, chat_template: boolean, weights: string }} Model */
/** @typedef {{ completion_tokens: number, prompt_tokens: number, prompt_tokens_details?: { cached_tokens: number } }} Usage */

/**
 * @template {HTMLElement} T
 * @param {string} id
 * @returns {T}
 */
const element = (id) => /** @type {T} */ (document.getElementById(id));

const messages = element('messages');
const welcome = element('welcome');
const status = element('status');
const settings = /** @type {HTMLFormElement} */ (element('settings'));
const prompt = /** @type {HTMLTextAreaElement} */ (element('prompt'));
const send = /** @type {HTMLButtonElement} */ (element('send'));
const stop = /** @type {HTMLButtonElement} */ (element('stop'));
const mode = /** @type {HTMLSelectElement} */ (element('mode'));
const apiKey = /** @type {HTMLInputElement} */ (element('api-key'));

/** @type {Turn[]} */
const conversation = [];
/** @type {Model | undefined} */
let model;
/** @type {AbortController | undefined} */
let running;

/** @param {string} id @returns {number | undefined} */
function numberIn(id) {
  const { value } = /** @type {HTMLInputElement} */ (element(id));
  return value === '' ? undefined : Number(value);
}

function headers() {
  const key = apiKey.value.trim();
  return { 'content-type': 'application/json', ...(key ? { authorization: `Bearer ${key}` } : {}) };
}

/** The endpoint and body for the conversation so far. */
function request() {
  const shared = {
    model: model?.id,
    stream: true,
    stream_options: { include_usage: true },
    temperature: numberIn('temperature'),
    top_p: numberIn('top-p'),
    max_tokens: numberIn('max-tokens'),
    seed: numberIn('seed'),
  };
  if (mode.value === 'continue') {
    return {
      path: 'v1/completions',
      body: { ...shared, prompt: conversation.map((t) => t.content).join('') },
    };
  }
  const system = /** @type {HTMLTextAreaElement} */ (element('system')).value.trim();
  const first = system ? [{ role: 'system', content: system }] : [];
  return { path: 'v1/chat/completions', body: { ...shared, messages: [...first, ...conversation] } };
}

/**
 * The JSON events of a response.
 * @param {ReadableStream<Uint8Array>} stream
 */
async function* eventsOf(stream) {
  const decoder = new TextDecoder();
  const reader = stream.getReader();
  let buffer = '';
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    buffer += decoder.decode(value, { stream: true });
    const lines = buffer.split('\n');
    buffer = lines.pop() ?? '';
    for (const line of lines) {
      if (line.startsWith('data: {')) yield JSON.parse(line.slice('data: '.length));
    }
  }
}

/**
 * Sends the conversation and passes the answer's text on as it comes.
 * @param {AbortSignal} signal
 * @param {(text: string) => void} onText
 * @returns {Promise<Usage | undefined>}
 */
async function generate(signal, onText) {
  const { path, body } = request();
  const response = await fetch(path, {
    method: 'POST',
    headers: headers(),
    body: JSON.stringify(body),
    signal,
  });
  if (!response.ok || !response.body) throw new Error(await explain(response));
  let usage;
  for await (const event of eventsOf(response.body)) {
    if (event.error) throw new Error(event.error.message);
    const choice = event.choices[0];
    const text = choice?.delta?.content ?? choice?.text;
    if (text) onText(text);
    usage = event.usage ?? usage;
  }
  return usage;
}

/** @param {Response} response */
async function explain(response) {
  if (response.status === 401) openSettings(true);
  const body = await response.json().catch(() => undefined);
  return body?.error?.message ?? `The server answered ${response.status}.`;
}

/** Counts what comes, and shows speed and time to the first token. */
class Speedometer {
  started = performance.now();
  /** @type {number | undefined} */
  first;
  pieces = 0;

  count() {
    this.first ??= performance.now();
    this.pieces++;
    status.textContent = this.text(this.pieces);
  }

  /** @param {Usage | undefined} usage */
  finish(usage) {
    const cached = usage?.prompt_tokens_details?.cached_tokens ?? 0;
    const read = usage ? ` · ${usage.prompt_tokens} tokens read, ${cached} of them from the cache` : '';
    status.textContent = this.text(usage?.completion_tokens ?? this.pieces) + read;
  }

  /** @param {number} tokens */
  text(tokens) {
    if (this.first === undefined) return 'no text came';
    const seconds = (performance.now() - this.first) / 1000;
    const speed = tokens > 1 && seconds > 0 ? `${((tokens - 1) / seconds).toFixed(1)} tokens/s · ` : '';
    return `${speed}${tokens} tokens · first after ${Math.round(this.first - this.started)} ms`;
  }
}

/** @param {Turn['role']} role @param {string} text */
function addBubble(role, text) {
  welcome.hidden = true;
  const bubble = document.createElement('div');
  bubble.className = `message ${role}`;
  render(bubble, text);
  messages.append(bubble);
  messages.scrollTop = messages.scrollHeight;
  return bubble;
}

/**
 * Text with its fenced code and code spans in boxes.
 * @param {HTMLElement} into
 * @param {string} text
 */
function render(into, text) {
  const parts = text.split(/^```[^\n]*\n?/m).map((part, i) => {
    if (i % 2 === 0) return spans(part);
    const block = document.createElement('pre');
    block.textContent = part.replace(/\n$/, '');
    return [block];
  });
  into.replaceChildren(...parts.flat());
}

/** @param {string} text */
function spans(text) {
  return text.split(/`([^`\n]+)`/).map((part, i) => {
    if (i % 2 === 0) return document.createTextNode(part);
    const code = document.createElement('code');
    code.textContent = part;
    return code;
  });
}

/** Lets the model answer the conversation. */
async function answer() {
  const bubble = addBubble('assistant', '');
  bubble.classList.add('running');
  const speed = new Speedometer();
  const controller = new AbortController();
  setRunning(controller);
  let text = '';
  let drawn = false;
  const draw = () => {
    drawn = false;
    const atEnd = messages.scrollHeight - messages.scrollTop - messages.clientHeight < 80;
    render(bubble, text.trimStart());
    if (atEnd) messages.scrollTop = messages.scrollHeight;
  };
  try {
    const usage = await generate(controller.signal, (piece) => {
      text += piece;
      speed.count();
      // Once a frame, however fast the model is.
      if (!drawn) requestAnimationFrame(draw);
      drawn = true;
    });
    speed.finish(usage);
  } catch (error) {
    if (controller.signal.aborted) speed.finish(undefined);
    else fail(bubble, text, /** @type {Error} */ (error));
  } finally {
    bubble.classList.remove('running');
    setRunning(undefined);
  }
  draw();
  if (text) conversation.push({ role: 'assistant', content: text });
  else if (controller.signal.aborted) bubble.remove();
}

/** @param {HTMLElement} bubble @param {string} text @param {Error} error */
function fail(bubble, text, error) {
  status.textContent = '';
  const note = addBubble('assistant', error.message);
  note.classList.add('failed');
  if (!text) bubble.remove();
}

/** @param {AbortController | undefined} controller */
function setRunning(controller) {
  running = controller;
  send.hidden = controller !== undefined;
  stop.hidden = controller === undefined;
  if (!controller) prompt.focus();
}

/** @param {boolean} open */
function openSettings(open) {
  settings.hidden = !open;
  element('toggle-settings').setAttribute('aria-expanded', String(open));
}

function submit() {
  const text = prompt.value;
  // Without a new text the model goes on by itself in "continue" mode.
  const goesOn = mode.value === 'continue' && conversation.length > 0;
  if (running || (text.trim() === '' && !goesOn)) return;
  prompt.value = '';
  fitPrompt();
  if (text.trim() !== '') {
    conversation.push({ role: 'user', content: text });
    addBubble('user', text);
  }
  answer();
}

function fitPrompt() {
  prompt.rows = Math.min(12, Math.max(1, prompt.value.split('\n').length));
}

function toggleTheme() {
  const dark = matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light';
  const now = document.documentElement.dataset.theme ?? dark;
  const next = now === 'dark' ? 'light' : 'dark';
  document.documentElement.dataset.theme = next;
  localStorage.setItem('theme', next);
}

/** Shows which model this is; without a chat template, continuing a text is what it can do. */
async function describeModel() {
  const response = await fetch('v1/models', { headers: headers() });
  if (!response.ok) {
    element('model').textContent = await explain(response);
    return;
  }
  const found = /** @type {Model} */ ((await response.json()).data[0]);
  model = found;
  const context = found.max_model_len.toLocaleString('en');
  element('model').textContent = `${found.id} · ${found.weights} · context ${context}`;
  document.title = `${found.id} · fathom`;
  if (!found.chat_template) {
    mode.value = 'continue';
    welcome.textContent = 'This model has no chat template: it continues the text that you begin.';
  }
}

prompt.addEventListener('input', fitPrompt);
prompt.addEventListener('keydown', (event) => {
  if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  submit();
});
element('composer').addEventListener('submit', (event) => {
  event.preventDefault();
  submit();
});
settings.addEventListener('submit', (event) => event.preventDefault());
stop.addEventListener('click', () => running?.abort());
element('clear').addEventListener('click', () => {
  running?.abort();
  conversation.length = 0;
  messages.replaceChildren(welcome);
  welcome.hidden = false;
  status.textContent = '';
});
element('toggle-settings').addEventListener('click', () => openSettings(settings.hidden === true));
element('theme').addEventListener('click', toggleTheme);
apiKey.addEventListener('change', () => {
  sessionStorage.setItem('api-key', apiKey.value);
  describeModel();
});

document.documentElement.dataset.theme = localStorage.getItem('theme') ?? '';
if (document.documentElement.dataset.theme === '') delete document.documentElement.dataset.theme;
apiKey.value = sessionStorage.getItem('api-key') ?? '';
describeModel();
