import { z } from 'zod';
import { UserError } from '../errors.js';
import { describeIssues } from './model.js';

const money = z.number();
const watts = z.number().nonnegative();

/** A cable's price as a line over its length, dollars per Gb/s [Besta and Hoefler, SC'14 §VI-B1]. */
const cable = z.strictObject({ perGbps: money, perGbpsMetre: money, watts: watts.default(0) });

/** What parts cost and draw: every coefficient of the Slim Fly method [SC'14 §VI]. */
export const pricesSchema = z.strictObject({
  name: z.string(),
  /** Where the figures are from. */
  source: z.string(),
  /** A switch of k ports costs base + perPort·k dollars. */
  switchBase: money,
  switchPerPort: money,
  switchWatts: watts,
  wattsPerPort: watts,
  /** Copper, up to `electricalMetres`. */
  electrical: cable,
  electricalMetres: z.number().nonnegative(),
  /** Fibre with its transceivers; watts are of both. */
  optical: cable,
  /** Racks: endpoints in one, its side, and what a cable takes beyond the distance between racks, and within one. */
  endpointsPerRack: z.int().positive().default(32),
  rackMetres: z.number().positive().default(1),
  slackMetres: z.number().nonnegative().default(2),
  rackCableMetres: z.number().nonnegative().default(1),
});
export type Prices = z.infer<typeof pricesSchema>;

export const PRICE_BOOKS = {
  /**
   * Table 3 of [ISCA] prints totals, not parts. Three prices (switch, switch-to-switch cable, endpoint cable) explain its five totals;
   * fibre at $2 a metre, the switch at $45,000 for 64 ports (assumed; the rows bound it between $39,000 and $79,000),
   * and the two cables so that the table's rows deviate least under the layout in `src/cluster/layout.ts`.
   * Watts: QM9700 747 W with passive cables, transceivers of 400 Gb/s 8 W each (vendor's data sheets).
   */
  'isca-2025': pricesSchema.parse({
    name: 'isca-2025',
    source: 'fitted to the totals of [ISCA table 3]; switch price and fibre assumed',
    switchBase: 0,
    switchPerPort: 703.125,
    switchWatts: 747,
    wattsPerPort: 0,
    electrical: { perGbps: 1.56, perGbpsMetre: 0 },
    electricalMetres: 3,
    optical: { perGbps: 4.34, perGbpsMetre: 0.005, watts: 16 },
  }),
  /** Mellanox InfiniBand FDR10, 40 Gb/s [SC'14 §VI-B]; 4 lanes of 0.7 W a port [SC'14 §VI-C]. */
  'slim-fly-2014': pricesSchema.parse({
    name: 'slim-fly-2014',
    source: "Besta and Hoefler, SC'14 §VI-B and §VI-C: Mellanox FDR10",
    switchBase: -892.3,
    switchPerPort: 350.4,
    switchWatts: 0,
    wattsPerPort: 2.8,
    electrical: { perGbps: 0.5771, perGbpsMetre: 0.4079 },
    electricalMetres: 5,
    optical: { perGbps: 2.7452, perGbpsMetre: 0.0919 },
  }),
} as const;
export type PriceBook = keyof typeof PRICE_BOOKS;

/** @throws UserError naming the field */
export function parsePrices(json: unknown, origin: string): Prices {
  const parsed = pricesSchema.safeParse(json);
  if (!parsed.success) throw new UserError(`${origin}: ${describeIssues(parsed.error)}`);
  return parsed.data;
}
