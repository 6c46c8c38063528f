/** The paper recomputed, as one HTML file that needs no other. */
import { escapeXml } from '../report/svg.js';
import type { PaperResult } from './catalogue.js';
import { type Figure, verdictOf } from './row.js';
import { cells, HOW_NAMES, NOTEWORTHY, outside } from './text.js';

const STYLE = `
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 980px; margin: 2rem auto; padding: 0 1rem; }
h1 { line-height: 1.2; } h2 { margin-top: 2.5rem; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th, td { text-align: left; padding: 5px 10px; border-bottom: 1px solid #dddddd; vertical-align: top; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
tr.outside td { color: #b03a00; font-weight: 600; } .small { color: #555555; font-size: 13px; }
svg { max-width: 100%; height: auto; } nav a { margin-right: 1em; }`;

/** @param about what was computed where and when, as lines */
export function paperPage(parts: readonly PaperResult[], about: readonly string[] = []): string {
  const title = 'Insights into DeepSeek-V3, recomputed';
  const links = parts.map(({ id, source }) => `<a href="#${id}">${escapeXml(source)}</a>`).join('');
  const body = [
    `<h1>${title}</h1>`,
    `<p>${escapeXml(summary(parts))}</p>`,
    ...about.map((line) => `<p class="small">${escapeXml(line)}</p>`),
    `<nav>${links}</nav>`,
    ...parts.map(section),
  ].join('\n');
  const head = `<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>${title}</title>`;
  return `<!doctype html>\n<html lang="en">\n<head>${head}<style>${STYLE}</style></head>\n<body>\n${body}\n</body>\n</html>\n`;
}

function summary(parts: readonly PaperResult[]): string {
  const banded = parts.flatMap(({ figures }) => figures).filter((one) => verdictOf(one) !== 'shown');
  const close = banded.filter(({ deviation }) => Math.abs(deviation!) <= NOTEWORTHY).length;
  const out = outside(parts).length;
  const rest = out === 0 ? 'all are inside their bands' : `${out} are outside their bands`;
  return `${banded.length} figures are compared with the paper's; ${close} lie within 5 %, ${rest}.`;
}

function section(part: PaperResult): string {
  const titles = ['Figure', 'Unit', 'Paper', 'Fathom', 'Deviation', 'Band'];
  const head = titles.map((title, i) => `<th${i > 1 ? ' class="number"' : ''}>${title}</th>`).join('');
  const rows = part.figures.map(row).join('\n');
  const notes = part.notes.map((note) => `<li>${escapeXml(note)}</li>`).join('');
  const charts = (part.charts ?? []).map(({ svg }) => svg).join('\n');
  return [
    `<h2 id="${part.id}">${escapeXml(`${part.source}: ${part.title}`)}</h2>`,
    `<p class="small">${HOW_NAMES[part.how]}</p>`,
    `<table><thead><tr>${head}</tr></thead><tbody>\n${rows}\n</tbody></table>`,
    notes === '' ? '' : `<ul class="small">${notes}</ul>`,
    charts,
  ].join('\n');
}

function row(figure: Figure): string {
  const texts = cells(figure);
  const { cause, deviation } = figure;
  const shown = cause && (deviation === null || Math.abs(deviation) > NOTEWORTHY);
  const why = shown ? `<br><span class="small">${escapeXml(cause)}</span>` : '';
  const columns = texts.map((text, i) => {
    const content = escapeXml(text) + (i === 0 ? why : '');
    return i > 1 ? `<td class="number">${content}</td>` : `<td>${content}</td>`;
  });
  return `<tr class="${verdictOf(figure)}">${columns.join('')}</tr>`;
}
