import { chains, pairs } from './stacks.js';

pairs(['column ranges', 'embeddings', 'norms']);
chains();
