import { zoo } from './zoo.js';

zoo(1, 3);
