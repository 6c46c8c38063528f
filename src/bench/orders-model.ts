/**
 * The model that `bench infer --speculative` measures drafts on: 20 layers and an MTP module, trained here in a few minutes on
 * made-up JSON records of orders. Of a record's fields three are drawn (customer, item, quantity); all others
 * follow from them or from the record before, so that most tokens can be foreseen: the text that drafts are good at.
 */
import fs from 'node:fs';
import path from 'node:path';
import { makeFolder, writeFileAtomicallySync, writeFully } from '../files.js';
import { Random } from '../numerics/random.js';
import type { Ui } from '../report/ui.js';
import { MODEL_PRESETS } from '../spec/presets.js';
import { runTraining } from '../train/run.js';
import { runStatus } from '../train/run-status.js';
import { cacheFolder } from './random-model.js';

/** Narrow and deep, so that the module is a small part, as in DeepSeek-V3 (one of 61 layers): one of 20. */
export const ORDERS_MODEL = {
  ...MODEL_PRESETS.tiny,
  first_k_dense_replace: 6,
  hidden_size: 256,
  intermediate_size: 512,
  kv_lora_rank: 128,
  moe_intermediate_size: 64,
  n_routed_experts: 16,
  n_shared_experts: 2,
  num_attention_heads: 4,
  num_hidden_layers: 20,
  num_key_value_heads: 4,
  q_lora_rank: 128,
  qk_nope_head_dim: 64,
  qk_rope_head_dim: 32,
  v_head_dim: 64,
  vocab_size: 512,
};

/** Settings of its training, as a training file. */
const TRAINING = {
  model: ORDERS_MODEL,
  steps: 400,
  batchSequences: 4,
  sequenceLength: 512,
  precision: 'bf16',
  learningRate: 2e-3,
  warmupSteps: 30,
  validateEvery: 200,
  validationBatches: 4,
  checkpointEvery: 200,
};

const DOCUMENTS = 2000;
const RECORDS_PER_DOCUMENT = 12;
const SEED = 1;

const CUSTOMERS = [
  ['Ada Byron', 'ada', 'London', 'GB'],
  ['Emmy Noether', 'emmy', 'Erlangen', 'DE'],
  ['Sofia Kovalevskaya', 'sofia', 'Stockholm', 'SE'],
  ['Henri Poincare', 'henri', 'Nancy', 'FR'],
  ['Srinivasa Ramanujan', 'srini', 'Madras', 'IN'],
  ['Grace Hopper', 'grace', 'Arlington', 'US'],
] as const;

/** Name, stock number, shelf, price in cents. */
const ITEMS = [
  ['compass', 'CP-104', 'A3', 1250],
  ['slide rule', 'SR-220', 'A7', 3900],
  ['abacus', 'AB-007', 'B1', 2400],
  ['sextant', 'SX-310', 'C4', 8800],
  ['protractor', 'PT-055', 'A4', 350],
  ['planimeter', 'PL-412', 'C9', 12900],
] as const;

/** A run of records with numbers that count up, one per line. */
export function ordersDocument(random: Random): string {
  const first = 100 + random.below(800);
  const lines = Array.from({ length: RECORDS_PER_DOCUMENT }, (_, i) => order(first + i, random));
  return `${lines.join('\n')}\n`;
}

function order(id: number, random: Random): string {
  const [customer, login, city, country] = CUSTOMERS[random.below(CUSTOMERS.length)]!;
  const [item, stock, shelf, cents] = ITEMS[random.below(ITEMS.length)]!;
  const quantity = 1 + random.below(3);
  return JSON.stringify({
    order: id,
    customer,
    email: `${login}@example.com`,
    city,
    country,
    item,
    stock,
    shelf,
    price: (cents / 100).toFixed(2),
    quantity,
    total: ((cents * quantity) / 100).toFixed(2),
    shipping: quantity > 1 ? 'parcel' : 'letter',
    status: 'shipped',
  });
}

/** The folder of the trained model, which is made the first time. @throws UserError when the disk fails */
export async function ordersModel(ui: Ui): Promise<string> {
  const out = path.join(cacheFolder(), 'models', 'orders');
  const status = runStatus(out);
  if (status === 'complete') return out;
  const data = path.join(cacheFolder(), 'models', 'orders-data');
  const [text, configFile] = [path.join(data, 'orders.jsonl'), path.join(data, 'training.json')];
  if (!fs.existsSync(configFile)) {
    makeFolder(data);
    const random = new Random(SEED);
    const documents = Array.from({ length: DOCUMENTS }, () =>
      JSON.stringify({ text: ordersDocument(random) }),
    );
    save(text, `${documents.join('\n')}\n`);
    save(configFile, `${JSON.stringify(TRAINING, null, 2)}\n`);
  }
  const source = status === 'unfinished' ? { resume: true } : { configFile, data: [text] };
  await runTraining({ ...source, out }, ui);
  return out;
}

function save(file: string, text: string): void {
  const bytes = Buffer.from(text);
  writeFileAtomicallySync(file, (descriptor) => writeFully(descriptor, bytes, 0));
}
