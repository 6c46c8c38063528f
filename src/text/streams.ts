/** Turning ids to text one at a time without ever handing out part of a character. */

/** Takes ids as they are generated and gives the text that has become certain. */
export interface TextStream {
  push(id: number): string;
  /** The text still held back, once no more ids come. */
  end(): string;
}

/** For byte-level vocabularies: the bytes of the tokens run through one UTF-8 decoder that waits for whole characters. */
export class ByteStream implements TextStream {
  private readonly decoder = new TextDecoder('utf-8', { ignoreBOM: true });

  constructor(private readonly bytes: ReadonlyMap<number, Uint8Array>) {}

  push(id: number): string {
    return this.decoder.decode(this.bytes.get(id), { stream: true });
  }

  end(): string {
    return this.decoder.decode();
  }
}

/**
 * For every other decoder, where a token's text may depend on the one before: decodes the ids last given out
 * with and without the new ones, and gives the difference once it no longer ends in an unfinished character (U+FFFD).
 */
export class WindowStream implements TextStream {
  private given: number[] = [];
  private held: number[] = [];

  constructor(private readonly decode: (ids: number[]) => string) {}

  push(id: number): string {
    this.held.push(id);
    const text = this.freshText();
    if (text === '' || text.endsWith('\ufffd')) return '';
    [this.given, this.held] = [this.held, []];
    return text;
  }

  end(): string {
    const text = this.freshText();
    [this.given, this.held] = [[], []];
    return text;
  }

  private freshText(): string {
    const context = this.decode(this.given);
    return this.decode([...this.given, ...this.held]).slice(context.length);
  }
}
