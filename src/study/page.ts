/** A study's report as one HTML file that needs no other. */
import { intervalSvg } from '../report/intervals.js';
import { type BandPoint, lineSvg } from '../report/lines.js';
import { scatterSvg } from '../report/scatter.js';
import { escapeXml } from '../report/svg.js';
import { percent } from '../report/units.js';
import type { ClaimReport, StudyReport } from './analysis.js';
import { METRICS, type MetricName } from './metrics.js';
import { machineText } from './text.js';
import { differenceText, evidenceText, ruleText, valueText } from './wording.js';

const STYLE = `
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 900px; margin: 2rem auto; padding: 0 1rem; }
h1 { line-height: 1.2; } h2 { margin-top: 2.5rem; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th, td { text-align: left; padding: 6px 10px; border-bottom: 1px solid #dddddd; vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
.verdict { font-weight: 600; white-space: nowrap; }
.confirmed { color: #00693e; } .refuted { color: #b03a00; } .undecided { color: #555555; }
.small { color: #555555; font-size: 14px; } svg { max-width: 100%; height: auto; }
pre { background: #f5f5f5; padding: 1rem; overflow-x: auto; font-size: 13px; }`;

/** @returns the whole document; the same report gives the same text */
export function reportPage(report: StudyReport): string {
  const { study } = report;
  const body = [
    `<h1>${escapeXml(study.title)}</h1>`,
    `<p>${escapeXml(study.question)}</p>`,
    section('Claims and verdicts', claims(report)),
    section('Figures', figures(report)),
    section('Measured', tables(report)),
    section('How to read this', method(report)),
    section('Configuration', configuration(report)),
  ];
  const head = `<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>${escapeXml(study.title)}</title>`;
  return `<!doctype html>\n<html lang="en">\n<head>${head}<style>${STYLE}</style></head>\n<body>\n${body.join('\n')}\n</body>\n</html>\n`;
}

const section = (title: string, content: string): string => `<h2>${title}</h2>\n${content}`;

function claims({ claims: list, study }: StudyReport): string {
  const rows = list.map((claim) => [
    claimCell(claim),
    evidenceCell(claim, study.confidence),
    verdictCell(claim),
  ]);
  return htmlTable(['The paper says', 'Measured here', 'Verdict at this scale'], rows);
}

const claimCell = ({ text, source }: ClaimReport): string =>
  cell(`${escapeXml(text)} <span class="small">${escapeXml(source)}</span>`);

const evidenceCell = (claim: ClaimReport, confidence: number): string =>
  cell(
    `${escapeXml(evidenceText(claim, confidence))}<br><span class="small">claim holds where: ${escapeXml(ruleText(claim))}</span>`,
  );

const verdictCell = ({ verdict }: ClaimReport): string => `<td class="verdict ${verdict}">${verdict}</td>`;

// ---- Figures --------------------------------------------------------------------------------------------------

function figures(report: StudyReport): string {
  const drawn = [differences(report), curves(report), differenceCurves(report), tradeoff(report)];
  return drawn.filter((figure) => figure !== '').join('\n');
}

/** Validation loss of each variant against the baseline, with the bounds that claims set. */
function differences({ variants, baseline, claims: list, study }: StudyReport): string {
  const rows = variants.flatMap(({ name, metrics }) => {
    // The baseline differs from itself by nothing.
    const { mean, low, high } = metrics.validationLoss?.difference ?? { mean: 0, low: 0, high: 0 };
    const known = metrics.validationLoss && low !== null && high !== null;
    return known ? [{ label: name, mean: 100 * mean, low: 100 * low, high: 100 * high }] : [];
  });
  if (rows.length === 0) return '';
  const bounds = list.flatMap(({ rule, metric, against }) =>
    rule.kind === 'within' && metric === 'validationLoss' && against === baseline ? [100 * rule.bound] : [],
  );
  const marks = [...new Set(bounds)].flatMap((bound) => [-bound, bound]);
  return intervalSvg({
    title: `Validation loss against ${baseline}`,
    xLabel: `relative difference in percent, with ${percent(study.confidence)} interval; left is better`,
    rows,
    marks: marks.map((x) => ({ x, label: `${x} %` })),
  });
}

/** A single point is no curve. */
const isCurve = ({ points }: { points: readonly BandPoint[] }): boolean => points.length > 1;

function curves({ variants }: StudyReport): string {
  const drawn = variants.map(({ name, curve }) => ({ name, points: curve })).filter(isCurve);
  if (drawn.length === 0) return '';
  return lineSvg({
    title: 'Validation loss',
    xLabel: 'steps; the band goes from the lowest to the highest seed',
    yLabel: 'nats per token',
    curves: drawn,
  });
}

function differenceCurves({ variants, baseline }: StudyReport): string {
  const drawn = variants
    .map(({ name, difference }) => ({ name, points: difference.map(inPercent) }))
    .filter(isCurve);
  if (drawn.length === 0) return '';
  return lineSvg({
    title: `Validation loss against ${baseline}, seed by seed`,
    xLabel: 'steps; the band goes from the lowest to the highest seed',
    yLabel: 'relative difference, percent',
    curves: drawn,
  });
}

const inPercent = ({ x, y, low, high }: BandPoint): BandPoint => ({
  x,
  y: 100 * y,
  low: 100 * low,
  high: 100 * high,
});

function tradeoff({ study, variants }: StudyReport): string {
  if (!study.tradeoff) return '';
  const { x, y } = study.tradeoff;
  const series = variants.flatMap(({ name, metrics }) => {
    const [across, up] = [metrics[x], metrics[y]];
    if (!across || !up) return [];
    return [{ name, points: [{ x: across.mean.mean, y: up.mean.mean, label: name }] }];
  });
  if (series.length === 0) return '';
  const [xLabel, yLabel] = [METRICS[x].label, METRICS[y].label];
  return scatterSvg({ title: `${yLabel} against ${xLabel}`, xLabel, yLabel, series });
}

// ---- Tables and text ------------------------------------------------------------------------------------------

function tables({ study, variants, baseline }: StudyReport): string {
  const titles = study.metrics.map((metric) => METRICS[metric].label);
  const row = (name: string, text: (metric: MetricName) => string) => [
    cell(escapeXml(name)),
    ...study.metrics.map((metric) => numberCell(text(metric) || '–')),
  ];
  const values = variants.map(({ title, metrics }) =>
    row(title, (metric) => (metrics[metric] ? valueText(metrics[metric], metric) : '')),
  );
  const others = variants.filter(({ name }) => name !== baseline);
  const relative = others.map(({ title, metrics }) =>
    row(title, (metric) => (metrics[metric] ? differenceText(metrics[metric]) : '')),
  );
  const first = htmlTable(['variant', ...titles], values);
  return `${first}\n<p>Relative to ${escapeXml(baseline)}, paired by seed:</p>\n${htmlTable(['variant', ...titles], relative)}`;
}

function method({ study }: StudyReport): string {
  const confidence = percent(study.confidence);
  const notes = study.notes.map((note) => `<li>${escapeXml(note)}</li>`).join('');
  return `<p>Every variant is trained once per seed; the seed decides weights, held-out text and order of the data, so that runs of
one seed differ only in the variant. Intervals are Student's ${confidence} intervals over the seeds: of the metric itself
(mean ± half-width), or of relative differences between runs of the same seed. Metrics are means over the last quarter of the steps.
A claim is confirmed where the whole interval lies where it says, refuted where none of it does, and undecided otherwise. Intervals are
not widened for the number of comparisons. Times are of a machine that may have done other work.</p>${notes ? `\n<ul>${notes}</ul>` : ''}`;
}

function configuration(report: StudyReport): string {
  const { study, runs } = report;
  const { base, variants, seeds, corpus, data } = study;
  const patches = Object.fromEntries(
    variants.map(({ name, patch, ranks }) => [name, ranks ? { ...patch, ranks } : patch]),
  );
  const text = data ? data.join(', ') : (corpus ?? 'sotu');
  const failed = runs.failed
    .map(({ variant, seed, error }) => `; failed: ${variant}, seed ${seed}: ${error}`)
    .join('');
  const summary = `${runs.complete} of ${runs.expected} runs, seeds ${seeds.join(', ')}, text: ${text}${failed}. ${machineText(report)}`;
  return `<p>${escapeXml(summary)}</p>\n<pre>${escapeXml(JSON.stringify({ base, variants: patches }, null, 2))}</pre>`;
}

const cell = (html: string): string => `<td>${html}</td>`;
const numberCell = (text: string): string => `<td class="number">${escapeXml(text)}</td>`;

/** @param rows cells as HTML; titles after the first stand over numbers where the cells do */
function htmlTable(titles: readonly string[], rows: readonly (readonly string[])[]): string {
  const isNumber = (column: number) => rows[0]?.[column]?.includes('class="number"') ?? false;
  const head = titles.map(
    (title, i) => `<th${isNumber(i) ? ' class="number"' : ''}>${escapeXml(title)}</th>`,
  );
  const body = rows.map((cells) => `<tr>${cells.join('')}</tr>`);
  return `<table>\n<thead><tr>${head.join('')}</tr></thead>\n<tbody>\n${body.join('\n')}\n</tbody>\n</table>`;
}
