import { battery } from './battery.js';

battery(7, 8);
