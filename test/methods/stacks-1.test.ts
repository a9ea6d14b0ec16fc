import { pairs } from './stacks.js';

pairs(['linears'], 0, 3);
