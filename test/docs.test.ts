/** Pages that name files name files that exist, and no page speaks of a machine. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { repositoryRoot } from './helpers/fixtures.js';

const pages = readdirSync(join(repositoryRoot, 'docs'))
  .filter((file) => file.endsWith('.md'))
  .sort();

describe.each(pages)('docs/%s', (page) => {
  const text = readFileSync(join(repositoryRoot, 'docs', page), 'utf8');

  it('names files that exist', () => {
    const named = [
      ...text.matchAll(/`((?:src|passes|runtime|test|fixtures|examples|scripts|docs)\/[\w./-]+)`/g),
    ];
    const missing = named.flatMap(([, path]) =>
      path === undefined || existsSync(join(repositoryRoot, path)) ? [] : [path],
    );
    expect(missing).toEqual([]);
  });

  it('links to pages and headings that exist', () => {
    const missing = [...text.matchAll(/\]\(([^)]+)\)/g)].flatMap(([, target = '']) => {
      if (/^https:/.test(target)) return [];
      const [file = '', heading] = target.split('#');
      const path = file === '' ? join(repositoryRoot, 'docs', page) : join(repositoryRoot, 'docs', file);
      if (!existsSync(path)) return [target];
      const headings = [...readFileSync(path, 'utf8').matchAll(/^#+ (.*)$/gm)].map(([, title = '']) =>
        title
          .toLowerCase()
          .replace(/[^\w\- ]/g, '')
          .replaceAll(' ', '-'),
      );
      return heading === undefined || headings.includes(heading) ? [] : [target];
    });
    expect(missing).toEqual([]);
  });

  it('speaks of no machine', () => {
    expect(text.match(/\/(home|work|opt|tmp|Users)\/\S*/g)).toBeNull();
  });
});
