import { replays } from './reference.js';

replays(2, 4);
