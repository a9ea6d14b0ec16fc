/** What is wrong with a value that a schema refused, in one line for people. */
import type { z } from 'zod';

/** `rank: expected a number >=1; unknown 'rnk'`: one clause per issue, the place first. */
export function describeIssues(error: z.core.$ZodError, known: readonly string[] = []): string {
  return error.issues
    .map((issue) => {
      if (issue.code === 'unrecognized_keys') {
        const keys = issue.keys.map((key) => `'${key}'`).join(', ');
        return `unknown ${keys}${known.length === 0 ? '' : ` (there are ${known.join(', ')})`}`;
      }
      const place = issue.path.map(String).join('.');
      const message = issue.message.charAt(0).toLowerCase() + issue.message.slice(1);
      return place === '' ? message : `${place}: ${message}`;
    })
    .join('; ');
}
