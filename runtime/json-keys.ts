/** Finds what `JSON.parse` hides: a key that occurs twice in one object. */

/** A key that some object of valid JSON `text` has twice, or undefined. */
export function duplicateKey(text: string): string | undefined {
  const scopes: (Set<string> | null)[] = [];
  const token = /["{}[\]]/g;
  for (let match = token.exec(text); match !== null; match = token.exec(text)) {
    const start = match.index;
    if (match[0] === '{') scopes.push(new Set());
    else if (match[0] === '[') scopes.push(null);
    else if (match[0] !== '"') scopes.pop();
    else {
      const end = stringEnd(text, start);
      token.lastIndex = end;
      if (!colonFollows(text, end)) continue;
      const key = JSON.parse(text.slice(start, end)) as string;
      const scope = scopes.at(-1);
      if (scope?.has(key)) return key;
      scope?.add(key);
    }
  }
  return undefined;
}

/** Index behind the closing quote of the string that starts at `start`. */
function stringEnd(text: string, start: number): number {
  for (let from = start + 1; ; ) {
    const quote = text.indexOf('"', from);
    if (quote < 0) return text.length;
    let backslashes = 0;
    while (text[quote - 1 - backslashes] === '\\') backslashes++;
    if (backslashes % 2 === 0) return quote + 1;
    from = quote + 1;
  }
}

function colonFollows(text: string, from: number): boolean {
  let at = from;
  while (text[at] === ' ' || text[at] === '\n' || text[at] === '\r' || text[at] === '\t') at++;
  return text[at] === ':';
}
