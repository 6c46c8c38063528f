// Talks to a running `fathom serve` through the official client: node examples/openai-client.mjs [BASE_URL]
import OpenAI from 'openai';

const baseURL = process.argv[2] ?? 'http://127.0.0.1:8000/v1';
const client = new OpenAI({ baseURL, apiKey: process.env.FATHOM_API_KEY ?? 'none' });
const model = (await client.models.list()).data[0].id;

// A completion, as a whole.
const completion = await client.completions.create({
  model,
  prompt: 'The state of the Union',
  max_tokens: 20,
  seed: 0,
});
console.log(`completion: ${completion.choices[0].text}`);

// A conversation, streamed.
const stream = await client.chat.completions.create({
  model,
  messages: [{ role: 'user', content: 'How is the Union?' }],
  max_tokens: 20,
  stream: true,
  stream_options: { include_usage: true },
});
process.stdout.write('chat: ');
for await (const { choices, usage } of stream) {
  process.stdout.write(choices[0]?.delta.content ?? '');
  if (usage) console.log(`\n${usage.prompt_tokens} tokens read, ${usage.completion_tokens} written`);
}
