import { battery } from './battery.js';

battery(0, 8);
