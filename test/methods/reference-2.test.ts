import { replays } from './reference.js';

replays(1, 4);
