// Talks to a running `fathom serve` through the Vercel AI SDK: node examples/ai-sdk.mjs [BASE_URL]
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { generateText, streamText } from 'ai';

const baseURL = process.argv[2] ?? 'http://127.0.0.1:8000/v1';
const apiKey = process.env.FATHOM_API_KEY ?? 'none';
const fathom = createOpenAICompatible({ name: 'fathom', baseURL, apiKey, includeUsage: true });
const { data } = await (
  await fetch(`${baseURL}/models`, { headers: { authorization: `Bearer ${apiKey}` } })
).json();
const model = fathom(data[0].id);

const { text, usage } = await generateText({ model, prompt: 'How is the Union?', maxOutputTokens: 20 });
console.log(`whole: ${text}\n${usage.inputTokens} tokens read, ${usage.outputTokens} written`);

const { textStream } = streamText({ model, prompt: 'And its people?', maxOutputTokens: 20 });
process.stdout.write('stream: ');
for await (const piece of textStream) process.stdout.write(piece);
console.log();
