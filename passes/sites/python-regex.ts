/** Python regular expressions as PEFT configurations hold them, compiled to JavaScript's. */
import { fail } from '../../src/errors.js';

/** Spellings that differ between the two languages; the rest of what module patterns use is the same. */
const SPELLINGS: readonly (readonly [RegExp, string])[] = [
  [/\(\?P</g, '(?<'],
  [/\(\?P=(\w+)\)/g, '\\k<$1>'],
  [/\\A/g, '^'],
  [/\\Z/g, '$'],
];

/** Compiles `pattern` with `wrap` put around it. Throws E_USAGE when it is no regular expression. */
export function pythonRegex(pattern: string, wrap: (pattern: string) => string): RegExp {
  let source = pattern;
  let flags = '';
  const inline = /^\(\?([imsx]+)\)/.exec(source);
  if (inline !== null) {
    source = source.slice(inline[0].length);
    flags = [...(inline[1] ?? '')].filter((flag) => flag !== 'x').join('');
  }
  for (const [from, to] of SPELLINGS) source = source.replace(from, to);
  try {
    return new RegExp(wrap(source), flags);
  } catch (cause) {
    return fail('E_USAGE', {
      message: `'${pattern}' is no regular expression`,
      remedy: 'A list of names needs no regular expression: query,value',
      cause,
    });
  }
}

/** `re.fullmatch`. */
export function fullMatch(pattern: string): RegExp {
  return pythonRegex(pattern, (source) => `^(?:${source})$`);
}
