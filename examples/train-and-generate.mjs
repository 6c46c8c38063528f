// Trains the smallest preset on a folder of texts and continues a sentence: node examples/train-and-generate.mjs [FOLDER]
import { generate, openModel, openTokenizer, runTraining, SILENT_UI } from 'fathom';

const out = process.argv[2] ?? 'runs/example';
const result = await runTraining({ preset: 'tiny', corpus: 'sotu', steps: 20, out }, SILENT_UI);
console.log(`loss ${result.loss.first.toFixed(2)} → ${result.loss.final.toFixed(2)}, saved in ${result.out}`);

const { model, recipe } = openModel(out);
const tokenizer = openTokenizer(out, model);
const prompt = [...tokenizer.encode('The state of the Union')];
const options = { maxTokens: 20, temperature: 0.8, topP: 0.95, topK: 0, seed: 0 };
console.log(generate(model, tokenizer, recipe, prompt, options).text);
