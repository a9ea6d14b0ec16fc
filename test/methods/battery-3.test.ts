import { battery } from './battery.js';

battery(2, 8);
