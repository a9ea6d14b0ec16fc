import { pairs } from './stacks.js';

pairs(['linears'], 1, 3);
