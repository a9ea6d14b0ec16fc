import { battery } from './battery.js';

battery(1, 8);
