import { zoo } from './zoo.js';

zoo(0, 3);
