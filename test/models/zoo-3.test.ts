import { zoo } from './zoo.js';

zoo(2, 3);
