import { Command } from 'commander';
import { z } from 'zod';
import { siteKindsOf } from '../../passes/methods/method.js';
import { METHODS, resolveMethod } from '../../passes/methods/registry.js';
import { print, printJson } from './output.js';
import { table } from './table.js';

interface MethodsFlags {
  readonly json?: boolean;
}

export function methodsCommand(): Command {
  return new Command('methods')
    .summary('list the methods and their settings')
    .argument('[id]', 'show the settings of one method')
    .option('--json', 'print JSON, with a JSON schema of every method')
    .action((id: string | undefined, flags: MethodsFlags) => {
      const methods = id === undefined ? METHODS : [resolveMethod(id)];
      const described = methods.map((method) => ({
        id: method.id,
        summary: method.summary,
        paper: method.paper,
        sites: siteKindsOf(method),
        config: z.toJSONSchema(method.config, { io: 'input' }),
      }));
      if (flags.json === true) return printJson({ methods: described });
      print(
        table(
          ['method', 'adapts', 'what it is', 'paper'],
          described.map(({ id, sites, summary, paper }) => [
            id,
            sites.join(', '),
            summary,
            `arXiv ${paper.arxiv}`,
          ]),
        ),
      );
      if (id === undefined) return;
      print();
      const properties = described[0]?.config.properties ?? {};
      const rows = Object.entries(properties).map(([name, schema]) => {
        const {
          default: value,
          description,
          type,
        } = schema as { default?: unknown; description?: string; type?: string };
        return [name, type ?? '', JSON.stringify(value) ?? '', description ?? ''];
      });
      print(table(['setting', 'type', 'default', 'meaning'], rows));
    });
}
