/** What is wrong with a value that a schema refused, in one line for people. */
import type { z } from 'zod';

/** Clauses of a message; the first ones say what the others follow from. */
const MOST = 3;

/** `rank: expected a number >=1; unknown 'rnk'`: one clause per issue, the place first, and how many more there are. */
export function describeIssues(error: z.core.$ZodError, known: readonly string[] = []): string {
  const clauses = error.issues.map((issue) => {
    if (issue.code === 'unrecognized_keys') {
      const keys = issue.keys.map((key) => `'${key}'`).join(', ');
      return `unknown ${keys}${known.length === 0 ? '' : ` (there are ${known.join(', ')})`}`;
    }
    const place = issue.path.map(String).join('.');
    const said = issue.message.replace(/^Invalid input: /, '');
    const message = said.charAt(0).toLowerCase() + said.slice(1);
    return place === '' ? message : `${place}: ${message}`;
  });
  const more = clauses.length - MOST;
  return [...clauses.slice(0, MOST), ...(more > 0 ? [`and ${more} more`] : [])].join('; ');
}
