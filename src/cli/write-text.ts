/** Writes a text file whole or not at all. @throws UserError when the disk fails */
export async function writeText(file: string, content: string): Promise<void> {
  const { writeFileAtomicallySync, writeFully } = await import('../files.js');
  writeFileAtomicallySync(file, (descriptor) => writeFully(descriptor, Buffer.from(content), 0));
}
