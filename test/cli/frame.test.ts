import { spawn, spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { fathom, MAIN, ROOT } from './run.js';

const { version } = JSON.parse(readFileSync(`${ROOT}/package.json`, 'utf8')) as { version: string };

describe('fathom', () => {
  it('prints its version and its help', async () => {
    expect(await fathom(['--version'])).toEqual({
      code: 0,
      signal: null,
      stdout: `${version}\n`,
      stderr: '',
    });
    const help = await fathom(['--help']);
    expect(help.code).toBe(0);
    expect(help.stdout).toContain('inspect');
    expect((await fathom([])).stdout).toBe(help.stdout);
  });

  it('gives every command --json and --debug', async () => {
    const commands = [
      'train',
      'generate',
      'chat',
      'score',
      'inspect',
      'demo',
      'tokenizer train',
      'tokenizer encode',
    ].map((c) => c.split(' '));
    for (const command of commands) {
      const { stdout } = await fathom([...command, '--help']);
      expect(stdout).toContain('--json');
      expect(stdout).toContain('--debug');
    }
  });

  it('starts with the line that lets a shell run it', () => {
    expect(readFileSync(MAIN, 'utf8').split('\n')[0]).toBe('#!/usr/bin/env node');
  });
});

describe('README.md', () => {
  const readme = readFileSync(`${ROOT}/README.md`, 'utf8');
  const lines = [...readme.matchAll(/^npx fathom ((?:(?:network|plan|tokenizer) )?\w+)(.*)$/gm)];

  it('shows commands and options that exist', async () => {
    expect(lines.length).toBeGreaterThan(3);
    for (const [line, command, rest] of lines) {
      const { code, stdout } = await fathom([...command!.split(' '), '--help']);
      expect([line, code]).toEqual([line, 0]);
      const options = rest!.match(/(?<= )--?[a-z][a-z-]*/g) ?? [];
      for (const option of options)
        expect(stdout).toMatch(new RegExp(`^ +(-\\w, )?${option}\\b|^ +${option},`, 'm'));
    }
  });
});

describe('wrong use', () => {
  const wrong: [what: string, args: string[], message: RegExp][] = [
    ['an unknown command', ['inspekt'], /^fathom: unknown command 'inspekt'.*inspect/],
    ['an unknown option', ['inspect', 'tiny', '--jason'], /^fathom: unknown option '--jason'.*--json/],
    ['a missing operand', ['inspect'], /^fathom: missing required argument 'model'/],
    ['an operand too many', ['inspect', 'tiny', 'mini'], /^fathom: too many arguments/],
  ];
  for (const [what, args, message] of wrong) {
    it(`answers ${what} with exit code 2 and one line`, async () => {
      const { code, stdout, stderr } = await fathom(args);
      expect(code).toBe(2);
      expect(stdout).toBe('');
      expect(stderr).toMatch(message);
      expect(stderr.trimEnd()).not.toContain('\n');
    });
  }
});

describe('a group of commands', () => {
  it('shows its commands when none is given, with exit code 2', async () => {
    const { code, stdout, stderr } = await fathom(['tokenizer']);
    expect([code, stdout]).toEqual([2, '']);
    expect(stderr).toMatch(/^Usage: fathom tokenizer[\s\S]*encode[\s\S]*decode/);
  });
});

describe('failures', () => {
  it('end with exit code 1 and one line that names the file', async () => {
    const { code, stdout, stderr } = await fathom(['inspect', 'test/goldens']);
    expect([code, stdout]).toEqual([1, '']);
    expect(stderr).toMatch(/^fathom: test\/goldens has no config\.json; .*\n$/);
  });

  it('turn errors of the system into words', async () => {
    const { code, stderr } = await fathom(['tokenizer', 'encode', '/nowhere', '--text', 'x']);
    expect(code).toBe(1);
    expect(stderr).toMatch(/^fathom: cannot \w+ \/nowhere: no such file or folder\n$/);
  });

  it('show the stack under --debug only', async () => {
    expect((await fathom(['inspect', 'nobody'])).stderr).not.toContain(' at ');
    expect((await fathom(['inspect', 'nobody', '--debug'])).stderr).toMatch(/\n {4}at /);
  });

  it('leave one JSON object on standard output under --json', async () => {
    const { code, stdout, stderr } = await fathom(['inspect', 'nobody', '--json']);
    expect(code).toBe(1);
    const { error } = JSON.parse(stdout) as { error: { kind: string; message: string } };
    expect(error.kind).toBe('user');
    expect(stderr).toBe(`fathom: ${error.message}\n`);
  });
});

describe('streams', () => {
  it('ends quietly when the reader of standard output goes away', async () => {
    const child = spawn(process.execPath, [MAIN, 'inspect', 'deepseek-v3']);
    child.stdout.destroy();
    let stderr = '';
    child.stderr.on('data', (text: Buffer) => (stderr += text));
    const code = await new Promise((resolve) => child.on('close', resolve));
    expect([code, stderr]).toEqual([0, '']);
  });

  it.runIf(process.platform === 'linux')('reports a full disk behind standard output', () => {
    const { status, stderr } = spawnSync(
      'sh',
      ['-c', `"${process.execPath}" "${MAIN}" inspect tiny > /dev/full`],
      {
        encoding: 'utf8',
      },
    );
    expect(status).toBe(1);
    expect(stderr).toMatch(/^fathom: cannot write standard output: no space left on the disk.*\n$/);
  });

  it.skipIf(process.platform === 'win32')('is ended by Ctrl-C, which a shell reports as 130', async () => {
    const child = spawn(process.execPath, [MAIN, 'tokenizer', 'encode', 'test/goldens/text/tokenizer.json'], {
      cwd: ROOT,
    });
    // It would wait for standard input for ever.
    child.kill('SIGINT');
    const signal = await new Promise((resolve) => child.on('close', (_code, by) => resolve(by)));
    expect(signal).toBe('SIGINT');
  });
});
