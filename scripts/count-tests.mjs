// Prints "N passed, N failed, N skipped" from the report of vitest's JSON reporter.
//
//   node scripts/count-tests.mjs REPORT.json
import { readFileSync } from 'node:fs';

const report = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const count = (status) => report.testResults.flatMap((file) => file.assertionResults).filter(status).length;
// A file that does not load has no tests; it counts as one that failed.
const broken = report.testResults.filter(
  (file) => file.status === 'failed' && file.assertionResults.length === 0,
);

const passed = count(({ status }) => status === 'passed');
// A worker that dies leaves no test behind that failed.
const failed = Math.max(count(({ status }) => status === 'failed') + broken.length, report.success ? 0 : 1);
const skipped = count(({ status }) => status !== 'passed' && status !== 'failed');
console.log(`${passed} passed, ${failed} failed, ${skipped} skipped`);
