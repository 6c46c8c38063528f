import type { Progress } from './progress.js';

/** How an engine talks to whoever started it: a command, a test, a program that uses the library. */
export interface Ui {
  /** Progress of a piece of work that takes more than a moment. */
  progress(label: string): Progress;
  /** Text for people as it comes, e.g. generated tokens; no newline is added. */
  print(text: string): void;
  /** A line that people should see although nothing failed. */
  note(line: string): void;
}

/** Says nothing. */
export const SILENT_UI: Ui = {
  progress: () => ({ update: () => {}, note: () => {}, end: () => {} }),
  print: () => {},
  note: () => {},
};
