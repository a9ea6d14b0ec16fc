import { pairs } from './stacks.js';

pairs(['linears'], 2, 3);
