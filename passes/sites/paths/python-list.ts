/** Python's `repr` of a list of strings, as torch.onnx and onnxscript write them into metadata. */

const ESCAPES: Readonly<Record<string, string>> = { n: '\n', t: '\t', r: '\r' };

/** `"['', 'a.b', \"it's\"]"` → `['', 'a.b', "it's"]`; undefined when the text is no such list. */
export function parsePythonList(text: string): string[] | undefined {
  const trimmed = text.trim();
  if (!trimmed.startsWith('[') || !trimmed.endsWith(']')) return undefined;
  const items: string[] = [];
  let i = 1;
  const end = trimmed.length - 1;
  const skipSpace = (): void => {
    while (i < end && /\s/.test(trimmed[i] ?? '')) i++;
  };
  skipSpace();
  while (i < end) {
    const quote = trimmed[i];
    if (quote !== "'" && quote !== '"') return undefined;
    i++;
    let item = '';
    while (i < end && trimmed[i] !== quote) {
      if (trimmed[i] !== '\\') {
        item += trimmed[i++];
        continue;
      }
      const [character, length] = escaped(trimmed, i + 1);
      item += character;
      i += 1 + length;
    }
    if (i >= end) return undefined;
    i++;
    items.push(item);
    skipSpace();
    if (i === end) break;
    if (trimmed[i] !== ',') return undefined;
    i++;
    skipSpace();
  }
  return items;
}

/** The character behind a backslash at `at - 1`, and how many characters it takes. */
function escaped(text: string, at: number): readonly [string, number] {
  const kind = text[at] ?? '';
  const digits = { x: 2, u: 4, U: 8 }[kind];
  if (digits === undefined) return [ESCAPES[kind] ?? kind, 1];
  const code = Number.parseInt(text.slice(at + 1, at + 1 + digits), 16);
  return Number.isNaN(code) || code > 0x10ffff ? [kind, 1] : [String.fromCodePoint(code), 1 + digits];
}
