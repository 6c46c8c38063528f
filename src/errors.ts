/** An error meant for the user: what is wrong, where, and what to do. Printed as one line, exit code 1. */
export class UserError extends Error {
  override name = 'UserError';

  /** Line ends in the message (quoted input, a library's own text) become blanks. */
  constructor(message: string) {
    super(message.replaceAll(/\s*[\r\n]\s*/g, ' '));
  }
}

/** A failure that another rank reports: this process only ends, exit code 1. */
export class ReportedError extends Error {
  override name = 'ReportedError';
}

/** Wrong use of a command (unknown flag value, missing argument). Printed as one line, exit code 2. */
export class UsageError extends UserError {
  override name = 'UsageError';
}
