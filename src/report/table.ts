/** One column of a table. */
export interface Column {
  title: string;
  /** Text to the left, numbers to the right; left by default. */
  align?: 'left' | 'right';
}

/**
 * Rows under their column titles, aligned with spaces, titles underlined: plain text that also reads well in a log.
 * @param rows one cell per column each
 */
export function table(columns: readonly Column[], rows: readonly (readonly string[])[]): string {
  const widths = columns.map(({ title }, c) => Math.max(width(title), ...rows.map((row) => width(row[c]!))));
  const line = (cells: readonly string[]) =>
    cells
      .map((cell, c) => pad(cell, widths[c]!, columns[c]!.align ?? 'left'))
      .join('  ')
      .trimEnd();
  const titles = line(columns.map(({ title }) => title));
  const rule = widths.map((w) => '─'.repeat(w)).join('  ');
  return [titles, rule, ...rows.map(line)].join('\n');
}

/** Names and values, one pair a line, values aligned. */
export function list(pairs: readonly (readonly [name: string, value: string])[]): string {
  const longest = Math.max(...pairs.map(([name]) => width(name)));
  return pairs.map(([name, value]) => `${pad(name, longest, 'left')}  ${value}`).join('\n');
}

/** Characters, not UTF-16 units. */
const width = (text: string): number => [...text].length;

function pad(text: string, to: number, align: 'left' | 'right'): string {
  const blanks = ' '.repeat(to - width(text));
  return align === 'left' ? text + blanks : blanks + text;
}
