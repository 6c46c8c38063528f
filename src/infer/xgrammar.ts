import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';

/** The parts of `@mlc-ai/web-xgrammar` used here, as its declarations have them. */
interface XGrammar {
  TokenizerInfo: {
    createTokenizerInfo(
      vocabulary: readonly string[],
      type: 'byte_level' | 'byte_fallback',
      prependSpace: boolean,
      vocabularySize: number,
      stopTokens: readonly number[],
    ): Promise<object>;
  };
  GrammarCompiler: { createGrammarCompiler(tokenizer: object): Promise<XGrammarCompiler> };
  GrammarMatcher: {
    createGrammarMatcher(
      grammar: object,
      stopTokens: undefined,
      endsWithoutStopToken: boolean,
    ): Promise<XGrammarMatcher>;
  };
}

interface XGrammarCompiler {
  compileJSONSchema(
    schema: string,
    anyWhitespace: boolean,
    indent: undefined,
    separators: undefined,
    strict: boolean,
    maxWhitespace: number,
  ): Promise<object>;
}

export interface XGrammarMatcher {
  acceptToken(id: number): boolean;
  /** i32 [⌈V/32⌉], a bit per token. */
  getNextTokenBitmask(): Promise<Int32Array>;
  isTerminated(): boolean;
  dispose(): void;
}

/**
 * Loads the library. Its one file is a CommonJS script inside a package that says it holds ES modules, so that neither
 * `import` nor `require` takes it; it is run with what a CommonJS script expects.
 */
export async function loadXGrammar(): Promise<XGrammar> {
  const file = fileURLToPath(import.meta.resolve('@mlc-ai/web-xgrammar'));
  const exports = {};
  const script = new Function('exports', 'module', 'require', '__filename', readFileSync(file, 'utf8'));
  script(exports, { exports }, createRequire(file), file);
  return exports as XGrammar;
}
