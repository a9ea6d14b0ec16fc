/** Finds what `JSON.parse` hides: a key that occurs twice in one object. */

/** A key that some object of valid JSON `text` has twice, or undefined. */
export function duplicateKey(text: string): string | undefined {
  const scopes: (Set<string> | null)[] = [];
  // One token per match: a string with an optional colon behind it, or a bracket.
  for (const match of text.matchAll(/"(?:[^"\\]|\\.)*"(\s*:)?|[{}[\]]/g)) {
    const token = match[0];
    if (token === '{') scopes.push(new Set());
    else if (token === '[') scopes.push(null);
    else if (token === '}' || token === ']') scopes.pop();
    else if (match[1] !== undefined) {
      const key = JSON.parse(token.slice(0, token.length - match[1].length)) as string;
      const scope = scopes.at(-1);
      if (scope?.has(key)) return key;
      scope?.add(key);
    }
  }
  return undefined;
}
