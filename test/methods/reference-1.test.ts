import { replays } from './reference.js';

replays(0, 4);
