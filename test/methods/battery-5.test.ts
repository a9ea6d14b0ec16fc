import { battery } from './battery.js';

battery(4, 8);
