import { replays } from './reference.js';

replays(3, 4);
